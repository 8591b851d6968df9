"Pages made of notebooks without Quarto: what a reader sees of the cells, with the site's own style and script."
import re
from base64 import b64encode
from functools import cache
from html import escape
from uuid import uuid4
import make_readme
from conftest import ROOT, read
from nbconvert import HTMLExporter
import nbformat

DIV, SPAN = re.compile(r'^:::+ *(\S.*)?$', re.M), re.compile(r'\[([^][\n]+)\]\{(\.[^}\n]*)\}')
IMAGE = re.compile(r'!\[((?:[^][]|\[[^]]*\])*)\]\(([^)\s]+)\)(?:\{([^}\n]*)\})?')
RAW = re.compile(r'^```\{=html\}\n(.*?)^```$', re.M | re.S)

def classes(attributes): return ' '.join(re.findall(r'\.([\w-]+)', attributes or ''))

def figure(m):
    alt = re.search(r'fig-alt="([^"]*)"', m[3] or '')
    return f'<figure><img src="{m[2]}" alt="{alt[1] if alt else escape(m[1])}"><figcaption>{m[1]}</figcaption></figure>'

def div(m): return f'<div class="{classes(m[1])}">\n' if m[1] else '</div>\n'

def plain(md):
    "Markdown without what only Quarto knows: fences, spans, attributes, raw HTML."
    md = make_readme.outside_code(lambda o: SPAN.sub(lambda m: f'<span class="{classes(m[2])}">{m[1]}</span>', DIV.sub(div, IMAGE.sub(figure, o))),
                                  RAW.sub(r'\1', md))
    return re.sub(r'^(#{1,6} .*?|.*\]\([^)\s]+\))\s*\{[^}\n]*\}', r'\1', md, flags=re.M)

def title(md):
    "The title cell: the front matter that nbdev would make of it goes."
    return '\n'.join(o for o in md.splitlines() if not re.match(r'- [\w-]+:', o))

def described(output, options):
    "A picture with its alternative text, markdown as HTML knows it."
    if 'data' not in output: return output
    data, alt = output.data, options.get('fig-alt', '')
    if 'text/markdown' in data: data['text/markdown'] = plain(''.join(data['text/markdown']))
    if 'image/png' in data: output.metadata = {'image/png': {'alt': alt}}
    if 'image/svg+xml' in data:
        svg = b64encode(''.join(data.pop('image/svg+xml')).encode()).decode()
        data['text/html'] = f'<img src="data:image/svg+xml;base64,{svg}" alt="{escape(alt)}">'
    return output

def text(source): return nbformat.from_dict(dict(cell_type='markdown', id=uuid4().hex[:8], metadata={}, source=source))

def listing(code, options):
    "Code as text, folded or not."
    if not code or options.get('echo') == 'false': return []
    pre = f'<pre>{escape(code)}</pre>'
    if 'code-fold' not in options: return [text(pre)]
    return [text(f'<details><summary>{escape(options.get("code-summary", "Code"))}</summary>\n{pre}</details>')]

def shown(cell):
    "What the page has of a cell: its text, or its code, outputs and caption."
    if cell.cell_type != 'code': return [text(plain(title(cell.source)))]
    options, code = make_readme.directives(cell.source.strip())
    if make_readme.HIDDEN - {'exports'} & options.keys() or options.get('include') == 'false': return []
    cell.outputs = [] if options.get('output') == 'false' else [described(o, options) for o in cell.outputs]
    caption = [text(f'<p class="figure-caption">{escape(options["fig-cap"])}</p>')] if 'fig-cap' in options else []
    return [*listing(code, options), cell, *caption]

@cache
def variables(theme):
    "Colours of one of the two themes."
    return dict(re.findall(r'^\$([\w-]+): (#\w+);', read(ROOT/f'nbs/{theme}.scss'), re.M))

def theme_css(theme):
    "The theme's colours, as Quarto would set them."
    v = {'body-bg': '#ffffff'} | variables(theme)
    b = f'.quarto-{theme}'
    return (f'{b} {{background: {v["body-bg"]}; color: {v["body-color"]}}} {b} a {{color: {v["link-color"]}}}\n'
            f'{b} code {{color: {v["code-color"]}; background: {v["code-bg"]}}} {b} pre code {{color: inherit; background: none}}\n')

PAGE = '''<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><base href="{base}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body {{margin: 0; font: 17px/1.5 sans-serif}} main {{max-width: 750px; margin: auto; padding: 0 1rem}}
figure {{margin: 1rem 0}} table {{border-collapse: collapse}} td, th {{padding: .3rem .5rem; text-align: left}}
{css}</style></head><body class="quarto-light"><main>{body}</main><script>{js}</script></body></html>'''

@cache
def exporter(): return HTMLExporter(template_name='basic', exclude_input=True, exclude_output_prompt=True, exclude_anchor_links=True)

@cache
def page(path):
    "The page of the notebook at `path`, whole."
    nb = nbformat.read(path, as_version=4)
    nb.cells = [o for cell in nb.cells for o in shown(cell)]
    body, _ = exporter().from_notebook_node(nb)
    fonts = (ROOT/'nbs/fonts').as_uri()
    css = theme_css('light') + theme_css('dark') + read(ROOT/'nbs/styles.css').replace('url(fonts/', f'url({fonts}/')
    return PAGE.format(title=path.stem, base=path.as_uri(), css=css, js=read(ROOT/'nbs/site.js'), body=body)
