"The site: what can be told without Quarto, then its pages in a browser, and where Quarto is there, the real ones."
import json, re, shutil, sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
import pytest, yaml
import make_readme, pages, stamp
from conftest import ROOT, cells, copy_tree, nb_paths, prose, read

# --- words and links

def anchor(heading):
    "The identifier pandoc gives a heading"
    if m := re.search(r'\{[^}]*#([\w.-]+)', heading): return m[1]
    text = re.sub(r'!?\[([^\]]*)\]\([^)]*\)', r'\1', re.sub(r'\{[^}]*\}\s*$', '', heading))
    text = re.sub(r'[^\w\s.-]', '', text.lower()).strip()
    return re.sub(r'^[^a-z]+', '', re.sub(r'\s+', '-', text))

def anchors(path):
    "What a link into the notebook at `path` may name: headings, explicit ids, figures, documented symbols"
    nb = json.loads(read(path))
    text, code = '\n\n'.join(cells(nb, 'markdown')), '\n\n'.join(cells(nb, 'code'))
    def named(pattern, where): return {*re.findall(pattern, where, re.M)}
    headings = {anchor(h) for h in named(r'^#{2,6}\s+(.+?)\s*$', text)}
    ids = named(r'\{[^}]*#([\w.-]+)', text) | named(r'^#\|\s*label:\s*(\S+)', code)
    symbols = named(r'^(?:def|class)\s+(\w+)', code) | named(r'^show_doc\(([\w.]+)', code)
    return headings | ids | symbols

def test_links_resolve(notebook, root):
    path, nb = notebook
    for target in re.findall(r'\]\(([^)\s]+)', prose(nb)):
        if re.match(r'[a-z][a-z+.-]*:', target): continue
        name, _, fragment = target.partition('#')
        to = (path.parent/name).resolve() if name else path
        assert to.is_file() and to.is_relative_to(root/'nbs'), f'{target}: not in nbs/, so not on the site'
        if fragment and to.suffix == '.ipynb': assert fragment in anchors(to), target

def test_title_cell_holds_nothing_else(notebook):
    "nbdev turns the cell with the title into front matter and drops all other text in it"
    first = next(s for s in cells(notebook[1], 'markdown') if re.search(r'^#\s+\S', s, re.M))
    rest = [o for o in first.splitlines() if o.strip() and not re.match(r'# |> |- [\w-]+:', o)]
    assert not rest and len(re.findall(r'^>', first, re.M)) == 1

def test_cell_options_are_yaml(notebook):
    "Quarto stops at a caption with a bare colon"
    for src in cells(notebook[1], 'code'):
        lines = [m[1] for o in src.splitlines() if (m := re.match(r'#\| ?([\w-]+:(?: .*)?|  .*)$', o))]
        try: options = yaml.safe_load('\n'.join(lines)) or {}
        except yaml.YAMLError as e: pytest.fail(f'{lines}\n{e}')
        assert all(isinstance(options.get(k, ''), str) for k in ('fig-cap', 'fig-alt', 'label')), lines

def has_picture(cell): return any(k.startswith('image/') for o in cell.get('outputs', []) for k in o.get('data', {}))

def test_pictures_have_caption_and_alt_text(notebook):
    for cell in filter(has_picture, notebook[1]['cells']):
        options, code = make_readme.directives(''.join(cell['source']))
        assert 'hide' in options or (options.get('fig-cap') and options.get('fig-alt')), code[-200:]

def test_no_error_outputs(notebook):
    outputs = [o for c in notebook[1]['cells'] for o in c.get('outputs', [])]
    assert not [o for o in outputs if o['output_type'] == 'error']

def test_citations_are_in_the_bibliography(notebook, root):
    path, nb = notebook
    keys = re.findall(r'^@\w+\{(\S+),', read(root/'nbs/references.bib'), re.M)
    assert len(keys) == len({*keys})
    cited = re.findall(r'(?<![\w.])@([A-Za-z][\w:-]*\w)', prose(nb))
    assert {o for o in cited if not re.match(r'(fig|tbl|sec|eq|lst|thm)-', o)} <= {*keys}
    if path.stem == 'index': assert not cited, 'README.md cannot resolve @ references'

# --- what Quarto is told

QUARTO = json.loads(read(ROOT/'tests/quarto.json'))  # keys and options that the pinned release knows
NBDEV = {'hide', 'default_exp', 'export', 'exports', 'exporti', 'slow', 'cuda', 'notest', 'eval'}
OWN = {'colab-base'}                                 # read by nbs/site.lua

def conf(root): return yaml.safe_load(read(root/'_quarto.yml'))

def test_known_names_are_of_the_pinned_release(root):
    steps = yaml.safe_load(read(root/'.github/workflows/docs.yaml'))['jobs']['build']['steps']
    assert QUARTO['version'] in [o.get('with', {}).get('version') for o in steps]

def test_cell_options_are_known(notebook):
    "Quarto ignores a misspelt option silently"
    for src in cells(notebook[1], 'code'):
        options, _ = make_readme.directives(src)
        unknown = {*options} - NBDEV - {*QUARTO['cell']} - {'filter_stream'}
        assert not unknown, f'{unknown}\n{src[:200]}'

def test_no_option_twice(notebook):
    "nbdev gives a cell with `#| exports` a fold and its summary, and Quarto stops at an option that is there twice"
    for src in cells(notebook[1], 'code'):
        names = re.findall(r'^#\|\s*([\w-]+)', src, re.M)
        twice = {o for o in names if names.count(o) > 1}
        if 'exports' in names: twice |= {*names} & {'code-fold', 'code-summary'}
        assert not twice, f'{twice}\n{src[:200]}'

def test_site_keys_are_known(root):
    "Quarto stops at an unknown key of the website, and ignores most others"
    site = conf(root)
    web, html = site['website'], site['format']['html']
    assert {*site} <= {*QUARTO['project file'], *QUARTO['document'], 'format', 'metadata-files'} | OWN
    assert {*html} <= {*QUARTO['document'], *QUARTO['cell']}
    assert {*site['project']} <= {*QUARTO['project']} and {*web} <= {*QUARTO['website']}
    for part in ('navbar', 'sidebar', 'page-footer', 'open-graph', 'twitter-card'):
        assert {*web[part]} <= {*QUARTO[part]}, part
    items = [*web['navbar']['left'], *web['navbar']['right'], *web['page-footer']['right']]
    assert all({*o} <= {*QUARTO['item']} for o in items)

def linked(item):
    "Where an item of a bar, or a menu of items, leads"
    if isinstance(item, str): return [item]
    return [item['href']] if 'href' in item else [o for sub in item.get('menu', item.get('contents')) for o in linked(sub)]

def test_bars_lead_to_pages(root):
    web, side = conf(root)['website'], yaml.safe_load(read(root/'nbs/sidebar.yml'))['website']['sidebar']
    items = [*web['navbar']['left'], *web['navbar']['right'], *web['page-footer']['right'], *side['contents']]
    hrefs = [o for item in items for o in linked(item)]
    hrefs += re.findall(r'\]\(/(\S+?)\)', read(root/'nbs/404.qmd')) + [web['favicon'], web['open-graph']['image'].lstrip('/')]
    local = [o.partition('#') for o in hrefs if '//' not in o]
    lost = [path for path, _, _ in local if not (root/'nbs'/path).is_file()]
    assert not lost
    assert [o for o in local if o[2] and o[2] not in anchors(root/'nbs'/o[0])] == []

def test_card(root):
    "Drawn by tools/make_card.py, of the size that others ask for"
    png = (root/'nbs/images/card.png').read_bytes()
    assert png[:8] == b'\x89PNG\r\n\x1a\n' and [int.from_bytes(png[i:i+4], 'big') for i in (16, 20)] == [1200, 630]
    assert len(png) < 300_000

def test_site_files_ask_no_other_host(root):
    "Pages read well offline"
    for name in ('styles.css', 'site.js', 'site.scss', 'light.scss', 'dark.scss'):
        assert not re.findall(r'//(?!--)\S+\.\w+/', read(root/'nbs'/name)), name

def test_outputs_load_nothing(notebook):
    "Beside a text/html output Quarto loads jQuery and RequireJS from another host; Markdown with raw HTML in a fence needs none"
    for cell in notebook[1]['cells']:
        kinds = {k for o in cell.get('outputs', []) for k in o.get('data', {})}
        assert 'hide' in make_readme.directives(''.join(cell['source']))[0] or not kinds & {'text/html', 'application/javascript'}

MARKDOWN_IMAGE = re.compile(r'!\[(.*?)\]\([^)\s]+\)(\{[^}\n]*\})?')

def test_images_in_prose_have_alternative_text(notebook):
    for caption, attributes in MARKDOWN_IMAGE.findall(prose(notebook[1])): assert caption or 'fig-alt' in attributes

INSTALLS = re.compile(r'^[!%].*\bpip install\b.*ensemble_kd', re.M)

def test_colab_links_are_on_pages_that_run_there(notebook):
    "They install the package, in a cell that runs there only, and read no file of the repository"
    path, nb = notebook
    linked = '- colab: true' in cells(nb, 'markdown')[0]
    code = '\n'.join(cells(nb, 'code'))
    if linked: assert INSTALLS.search(code) and '../results' not in code, path.stem

# --- contrast

def luminance(colour):
    parts = [int(colour[i:i+2], 16)/255 for i in (1, 3, 5)]
    return sum(w*(o/12.92 if o <= .03928 else ((o+.055)/1.055)**2.4) for w, o in zip((.2126, .7152, .0722), parts))

def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high+.05)/(low+.05)

PAIRS = dict(body='body-bg', link='body-bg', code='code-bg', navbar='navbar-bg')
INKS = dict(body='body-color', link='link-color', code='code-color', navbar='navbar-fg')

@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_theme_contrast(theme):
    v = {'body-bg': '#ffffff'} | pages.variables(theme)
    for name, ground in PAIRS.items(): assert contrast(v[INKS[name]], v[ground]) >= 4.5, name
    assert contrast(v['text-muted'], v['body-bg']) >= 4.5

# --- stamps

def test_outputs_are_those_of_the_code():
    "Each executed notebook records what its outputs follow from"
    assert [o.stem for o in stamp.stale()] == [], 'run python tools/stamp.py'

def test_stamp_follows_code_and_results_not_words(root):
    nb = stamp.read(root/'nbs/findings/cifar.ipynb')
    before = stamp.digest(nb)
    code = next(c for c in nb['cells'] if c['cell_type'] == 'code')
    code['source'] = ['# a remark\n', '\n', *code['source']]
    assert stamp.digest(nb) == before
    code['source'] += ['\nx = 1']
    assert stamp.digest(nb) != before
    assert {'cifar', 'claims', 'core'} <= {*stamp.closure('from ensemble_kd.cifar import NAMES')}
    assert [o.name for o in stamp.results("read('../results/film.json')")] == ['film.json']
    assert stamp.bare('def f():\n    "Says."\n    return 1  # one') == 'def f():\n    return 1'

# --- in a browser

BROWSERS = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'
WIDE, PHONE = dict(width=1440, height=900), dict(width=390, height=844)
LOOKED_AT = 'index', 'idea', '04_ensemble', 'findings/cifar'  # with axe; all others are measured only

@pytest.fixture(scope='module')
def browser():
    api = pytest.importorskip('playwright.sync_api')
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not path: pytest.skip('no Chromium on the PATH')
    with api.sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=path, args=['--no-sandbox'])
        yield browser
        browser.close()

@pytest.fixture(scope='module')
def axe():
    home = pytest.importorskip('axe_playwright_python')
    return read(Path(home.__file__).parent/'axe.min.js')

@pytest.fixture
def tab(browser):
    "An empty page; `tab.said` is what it complains of, and what it asks of other hosts"
    page = browser.new_page(viewport=WIDE)
    page.said = []
    page.on('console', lambda m: page.said.append(m.text) if m.type == 'error' else None)
    page.on('pageerror', lambda e: page.said.append(str(e)))
    page.on('request', lambda r: None if re.match(r'file:|data:|http://127\.0\.0\.1', r.url) else page.said.append(r.url))
    yield page
    page.close()

@pytest.fixture(scope='module')
def pages_dir(tmp_path_factory): return tmp_path_factory.mktemp('pages')

def show(tab, name, folder):
    "Open the page of a notebook"
    file = folder/f'{name.replace("/", "-")}.html'
    if not file.exists(): file.write_text(pages.page(ROOT/f'nbs/{name}.ipynb'), encoding='utf-8')
    tab.goto(file.as_uri())

def overflow(tab, size):
    "How far the page is wider than a window of that size, and what sticks out"
    tab.set_viewport_size(size)
    return tab.evaluate("""() => {
        const wide = document.documentElement.scrollWidth - innerWidth;
        const out = [...document.querySelectorAll('main *')].filter(o => o.getBoundingClientRect().right > innerWidth + 1);
        return wide > 0 ? [wide, ...out.slice(0, 3).map(o => o.outerHTML.slice(0, 150))] : [];
    }""")

def faults(tab, axe, impact=('serious', 'critical')):
    "What axe-core finds"
    if not tab.evaluate('"axe" in window'): tab.evaluate(axe)
    found = tab.evaluate('axe.run(document, {resultTypes: ["violations"]})')['violations']
    return [(o['id'], n['html'][:200], n['failureSummary'][:200]) for o in found if o['impact'] in impact for n in o['nodes']]

def dress(tab, theme): tab.evaluate(f'document.body.className = "quarto-{theme}"')

@pytest.mark.parametrize('name', LOOKED_AT)
def test_pages_are_accessible(tab, axe, pages_dir, name):
    show(tab, name, pages_dir)
    assert overflow(tab, WIDE) == [] and faults(tab, axe) == []
    dress(tab, 'dark')
    assert overflow(tab, PHONE) == [] and faults(tab, axe) == []
    assert tab.said == []

def test_pages_fit_a_phone(tab, pages_dir):
    wide = {}
    for path in nb_paths():
        name = path.relative_to(ROOT/'nbs').with_suffix('').as_posix()
        tab.set_viewport_size(PHONE)
        show(tab, name, pages_dir)
        if found := overflow(tab, PHONE): wide[name] = found
    assert wide == {} and tab.said == []

def test_tables_are_cards_on_a_phone(tab, pages_dir):
    "Each cell is named by its column; on a desk the same table has its header"
    show(tab, 'index', pages_dir)
    head = tab.locator('table.cards thead').first
    cell = tab.locator('table.cards td[data-label]').first
    assert head.bounding_box()['height'] > 10
    tab.set_viewport_size(PHONE)
    assert head.bounding_box()['height'] <= 1
    label = cell.get_attribute('data-label')
    assert label in head.text_content()
    assert tab.evaluate('o => getComputedStyle(o, "::before").content', cell.element_handle()) == f'"{label}"'

def test_without_scripts_tables_scroll_in_a_box(browser, pages_dir, tab):
    show(tab, 'index', pages_dir)
    quiet = browser.new_context(java_script_enabled=False, viewport=PHONE).new_page()
    quiet.goto(tab.url)
    assert overflow(quiet, PHONE) == []
    wide = quiet.evaluate('[...document.querySelectorAll("main table")].filter(o => getComputedStyle(o).overflowX == "auto").length')
    assert wide
    quiet.context.close()

def test_the_figure_works_by_keyboard(tab, pages_dir):
    show(tab, 'idea', pages_dir)
    says, networks, time = (tab.locator(f'[data-role="{o}"]').first for o in ('says', 'K', 'time'))
    def state(): return tab.locator('.film').inner_html()
    for slider in (networks, time):
        before, value = state(), slider.input_value()
        slider.focus()
        tab.keyboard.press('ArrowLeft')
        assert int(slider.input_value()) == int(value) - 1 and state() != before
        tab.keyboard.press('ArrowRight')
        assert slider.input_value() == value
    tab.locator('[data-role="seed"]').focus()
    before = state()
    tab.keyboard.press('ArrowDown')
    assert state() != before and tab.said == []

# --- the real site, where Quarto is there

@pytest.fixture(scope='module')
def real_site(tmp_path_factory, run):
    "The site as published, below the folder that it has there"
    if not shutil.which('quarto'): pytest.skip('no Quarto on the PATH')
    tree = copy_tree(tmp_path_factory.mktemp('real')/'tree')
    run('nbdev_docs', cwd=tree, PYTHONPATH=str(tree), OMP_NUM_THREADS='1')
    run(sys.executable, ROOT/'tools/make_llms.py', '_docs', cwd=tree)
    (tree/'served').mkdir()
    return (tree/'_docs').rename(tree/'served/ensemble_kd')

@pytest.fixture(scope='module')
def served(real_site):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(real_site.parent)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/ensemble_kd/'
    server.shutdown()

def test_real_pages(real_site, served, browser, axe, tab):
    wrong = {}
    for path in sorted(real_site.rglob('*.html')):
        name = path.relative_to(real_site).as_posix()
        if name.startswith('site_libs'): continue
        for theme, size in (('light', WIDE), ('dark', PHONE)):
            tab.emulate_media(color_scheme=theme)
            tab.set_viewport_size(size)
            tab.goto(served + name)
            if found := [*overflow(tab, size), *faults(tab, axe), *tab.said]: wrong[name, theme] = found
            tab.said.clear()
    assert wrong == {}

def test_real_links(real_site):
    "Links of the built pages lead to files of the site, and to places in them"
    href, named = re.compile(r'<a\b[^>]*?\bhref="([^"#:]*)(?:#([^"]*))?"'), re.compile(r'\bid="([^"]+)"')
    texts = {o.resolve(): read(o) for o in real_site.rglob('*.html')}
    ids = {o: {*named.findall(text)} for o, text in texts.items()}
    def lost(page, to, place):
        base = real_site.parent if to.startswith('/') else page.parent
        file = (base/to.lstrip('/')).resolve() if to else page
        file = file/'index.html' if file.is_dir() else file
        return not file.is_file() or (place and file in ids and place not in ids[file])
    dead = [(o.name, to, place) for o, text in texts.items() for to, place in href.findall(text) if lost(o, to, place)]
    assert dead == []
