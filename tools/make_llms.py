#!/usr/bin/env python3
"""Write llms.txt (https://llmstxt.org), a map of the site, and llms-ctx.txt into the built site: `python tools/make_llms.py _docs`.

The map is tools/llms.txt, written by hand; each notebook that it lists becomes a page's title, address and description.
The address is that of the markdown which Quarto writes beside the page (its own key `llms-txt` stops the releases before 1.9.21).
llms-ctx.txt holds the map's words and the text of all its pages but the optional ones.
"""
import posixpath
import re
import sys
from html import escape
from pathlib import Path
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.frontmatter import FrontmatterProc
from nbdev.process import NBProcessor

MAP = Path(__file__).resolve().parent/'llms.txt'
ENTRY = re.compile(r'^- (\S+\.ipynb)$', re.M)
LINK = re.compile(r'(\]\(|href=")([^)"\s#:]+\.ipynb)')
NOT_WORDS = re.compile(r'<(script|style|svg)\b.*?</\1>|<!--.*?-->|!\[\]\(data:[^)]*\)', re.S)

def page(path, nbs):
    "Where the markdown of a notebook's page lies in the site, and the page's front matter."
    matter = NBProcessor(path, FrontmatterProc, process=True).nb.frontmatter_
    return (path.relative_to(nbs).parent/matter['output-file']).as_posix() + '.md', matter

def pages(nbs):
    "The pages of all notebooks under `nbs`, by the notebook's path."
    return {o.relative_to(nbs).as_posix(): page(o, nbs) for o in nbglob(nbs, as_path=True)}

def unlisted(text, found):
    "Notebooks that the map `text` should list once and does not, or lists without their being there."
    listed = ENTRY.findall(text)
    return sorted({*found} ^ {*listed} | {o for o in listed if listed.count(o) > 1})

def llms_txt(cfg, found, text):
    "The map `text`, its notebooks turned into entries, for a project with the settings `cfg`."
    def entry(m):
        path, matter = found[m[1]]
        return f"- [{matter['title']}]({cfg.doc_host}{cfg.doc_baseurl}/{path}): {matter['description']}"
    return ENTRY.sub(entry, text.replace('{title}', cfg.title).replace('{description}', cfg.description))

def addressed(words, name, found, at):
    "`words` of the notebook `name`, its links to notebooks turned into addresses of pages below `at`."
    def address(m):
        to = posixpath.normpath(posixpath.join(posixpath.dirname(name), m[2]))
        return f"{m[1]}{at}/{found[to][0].removesuffix('.md')}" if to in found else m[0]
    return LINK.sub(address, words)

def context(cfg, found, text, docs):
    "Words of the map `text`, and the pages of its sections but the optional one, each between tags."
    head, *sections = re.split(r'^## ', text, flags=re.M)
    at, parts = cfg.doc_host + cfg.doc_baseurl, [head.split('\n\n', 2)[2].strip()]
    for section in sections:
        if section.startswith('Optional'): continue
        for name in ENTRY.findall(section):
            path, matter = found[name]
            words = NOT_WORDS.sub('', (docs/path).read_text(encoding='utf-8')).strip()
            opened = f'<doc title="{escape(matter["title"])}" url="{at}/{path}">'
            parts.append(f'{opened}\n{addressed(words, name, found, at)}\n</doc>')
    inside = '\n\n'.join(parts)
    return f'<project title="{escape(cfg.title)}" summary="{escape(cfg.description)}">\n{inside}\n</project>\n'

def main():
    cfg, docs, text = get_config(), Path(sys.argv[1]), MAP.read_text(encoding='utf-8')
    found = pages(cfg.nbs_path)
    wrong = unlisted(text, found)
    if wrong: sys.exit(f'{MAP} should list each notebook once; look at {", ".join(wrong)}')
    lost = [path for path, _ in found.values() if not (docs/path).is_file()]
    if lost: sys.exit(f'{docs} is not a whole site, it lacks {", ".join(lost)}')
    (docs/'llms.txt').write_text(llms_txt(cfg, found, text), encoding='utf-8')
    (docs/'llms-ctx.txt').write_text(context(cfg, found, text, docs), encoding='utf-8')

if __name__ == '__main__': main()
