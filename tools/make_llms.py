#!/usr/bin/env python3
"""Write llms.txt (https://llmstxt.org), a map of the site, into the built site: `python tools/make_llms.py _docs`.

It gives each page's title and description, and the address of the markdown that Quarto writes beside the page.
Quarto's own key `llms-txt` stops the releases before 1.9.21.
"""
import sys
from pathlib import Path
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.frontmatter import FrontmatterProc
from nbdev.process import NBProcessor

SECTIONS = {'.': 'Chapters', 'tutorials': 'Tutorials', 'findings': 'Findings'}  # folder → heading

def page(path, nbs):
    "Where the markdown of a notebook's page lies in the site, and the page's front matter."
    matter = NBProcessor(path, FrontmatterProc, process=True).nb.frontmatter_
    return (path.relative_to(nbs).parent/matter['output-file']).as_posix() + '.md', matter

def pages(nbs):
    "The pages of all notebooks under `nbs`, the first page first."
    found = sorted(nbglob(nbs, as_path=True), key=lambda o: (o.stem != 'index', o))
    return [page(o, nbs) for o in found]

def llms_txt(cfg, found):
    "Text of llms.txt for the `found` pages of a project with the settings `cfg`."
    def entry(path, matter):
        return f"- [{matter['title']}]({cfg.doc_host}{cfg.doc_baseurl}/{path}): {matter['description']}"
    parts = [f'# {cfg.title}', f'> {cfg.description}']
    for folder, heading in SECTIONS.items():
        entries = [entry(*o) for o in found if Path(o[0]).parent == Path(folder)]
        if entries: parts += [f'## {heading}', '\n'.join(entries)]
    return '\n\n'.join(parts) + '\n'

def main():
    cfg, docs = get_config(), Path(sys.argv[1])
    found = pages(cfg.nbs_path)
    lost = [path for path, _ in found if not (docs/path).is_file()]
    if lost: sys.exit(f'{docs} is not a whole site, it lacks {", ".join(lost)}')
    (docs/'llms.txt').write_text(llms_txt(cfg, found), encoding='utf-8')

if __name__ == '__main__': main()
