"What no single notebook can check: the repository's parts are in step, the package installs, the site has no loose ends."
import json, os, re, sys
import pytest, yaml
import ensemble_kd, make_readme
from conftest import nb_paths

NO_TEXT = re.compile(make_readme.CODE.pattern + r'|\$\$.+?\$\$|\$[^$\n]+\$', re.M | re.S)

def cells(nb, kind): return [''.join(c['source']) for c in nb['cells'] if c['cell_type'] == kind]
def prose(nb): return NO_TEXT.sub('', '\n\n'.join(cells(nb, 'markdown')))
def modules(d): return {p.name: p.read_text(encoding='utf-8') for p in d.glob('*.py')}

# --- in step

def test_modules_are_what_the_notebooks_export(root, tree, run):
    for p in (tree/'ensemble_kd').glob('*.py'):
        if p.name != '__init__.py': p.unlink()
    run('nbdev_export', cwd=tree)
    want, got = modules(tree/'ensemble_kd'), modules(root/'ensemble_kd')
    assert want.keys() == got.keys()
    assert [k for k in want if want[k] != got[k]] == [], 'run nbdev_export'

def test_notebooks_are_clean(root, tree, run):
    run('nbdev_clean', cwd=tree)
    unclean = [p.name for p in nb_paths() if (tree/p.relative_to(root)).read_bytes() != p.read_bytes()]
    assert not unclean, 'run nbdev_clean'

def test_readme_is_what_index_says(root):
    text, pictures = make_readme.render(json.loads((root/'nbs/index.ipynb').read_text(encoding='utf-8')))
    how = 'run python tools/make_readme.py'
    assert (root/'README.md').read_text(encoding='utf-8') == text, how
    assert all((root/p).read_bytes() == png for p, png in pictures.items()), how

def test_readme_has_the_command_that_ci_runs(root):
    *_, command = (root/'.ci/run').read_text().strip().splitlines()
    assert command in (root/'README.md').read_text(encoding='utf-8').splitlines()
    assert os.access(root/'.ci/run', os.X_OK)

def test_version(root, settings):
    assert settings['version'] == ensemble_kd.__version__
    assert re.search(rf'^## \[?{re.escape(settings["version"])}\b', (root/'CHANGELOG.md').read_text(encoding='utf-8'), re.M)

def test_site_settings(root, tree, run):
    link = root/'nbs/_quarto.yml'
    assert link.is_symlink() and os.readlink(link) == '../_quarto.yml'
    conf = yaml.safe_load(link.read_text())
    assert conf['format']['html']['keep-md'] and conf['format']['commonmark'] == 'default'
    run(sys.executable, '-c', 'from nbdev.quarto import refresh_quarto_yml as f; f()', cwd=tree)
    assert (tree/'nbs/nbdev.yml').read_text() == (root/'nbs/nbdev.yml').read_text()

def test_workflows_parse(root):
    flows = list((root/'.github/workflows').glob('*.yaml'))
    assert flows and all(yaml.safe_load(f.read_text())['jobs'] for f in flows)

# --- installs

USE_ALL = '''
import sys, pkgutil, fastcore, ensemble_kd
from importlib import import_module
from importlib.metadata import entry_points
for m in pkgutil.iter_modules(ensemble_kd.__path__): import_module(f'ensemble_kd.{m.name}')
assert 'nbdev' not in sys.modules
commands = [e for e in entry_points(group='console_scripts') if e.value.startswith('ensemble_kd.')]
for e in commands:
    sys.argv = [e.name, '--help']
    try: e.load()()
    except SystemExit as exc: assert not exc.code, e
print(fastcore.__version__, len(commands), ensemble_kd.__file__, sep='|')
'''

@pytest.mark.parametrize('version', ['1.12.*', '1.*', '2.*'])
def test_wheel_with_fastcore(version, site, tmp_path, settings, pip_or_skip, run):
    pip_or_skip('install', '-q', '--no-deps', '--target', tmp_path/'fastcore', f'fastcore=={version}')
    script = tmp_path/'use_all.py'; script.write_text(USE_ALL)  # a file: fastcore parses arguments only for a real main module
    out = run(sys.executable, script, cwd=tmp_path, PYTHONPATH=os.pathsep.join([str(tmp_path/'fastcore'), str(site)]))
    fastcore, n, path = out.splitlines()[-1].split('|')
    assert fastcore.startswith(version.rstrip('*'))
    assert int(n) == len(settings['console_scripts'].split())
    assert path.startswith(str(site))

# --- the site

def anchor(heading):
    "The identifier pandoc gives a heading"
    if m := re.search(r'\{[^}]*#([\w.-]+)', heading): return m[1]
    text = re.sub(r'!?\[([^\]]*)\]\([^)]*\)', r'\1', re.sub(r'\{[^}]*\}\s*$', '', heading))
    text = re.sub(r'[^\w\s.-]', '', text.lower()).strip()
    return re.sub(r'^[^a-z]+', '', re.sub(r'\s+', '-', text))

def anchors(path):
    "What a link into the notebook at `path` may name: headings, explicit ids, figures, documented symbols"
    nb = json.loads(path.read_text(encoding='utf-8'))
    text = '\n\n'.join(cells(nb, 'markdown'))
    code = '\n\n'.join(cells(nb, 'code'))
    found = {anchor(h) for h in re.findall(r'^#{2,6}\s+(.+?)\s*$', text, re.M)}
    found |= set(re.findall(r'\{[^}]*#([\w.-]+)', text)) | set(re.findall(r'^#\|\s*label:\s*(\S+)', code, re.M))
    return found | set(re.findall(r'^(?:def|class)\s+(\w+)', code, re.M)) | set(re.findall(r'^show_doc\(([\w.]+)', code, re.M))

def test_links_resolve(notebook, root):
    path, nb = notebook
    for target in re.findall(r'\]\(([^)\s]+)', prose(nb)):
        if re.match(r'[a-z][a-z+.-]*:', target): continue
        name, _, frag = target.partition('#')
        to = (path.parent/name).resolve() if name else path
        assert to.is_file() and to.is_relative_to(root/'nbs'), f'{target}: not in nbs/, so not on the site'
        if frag and to.suffix == '.ipynb': assert frag in anchors(to), target

def test_title_cell_holds_nothing_else(notebook):
    "nbdev turns the cell with the title into front matter and drops all other text in it"
    first = next(s for s in cells(notebook[1], 'markdown') if re.search(r'^#\s+\S', s, re.M))
    rest = [l for l in first.splitlines() if l.strip() and not re.match(r'# |> |- [\w-]+:', l)]
    assert not rest and len(re.findall(r'^>', first, re.M)) == 1

def test_cell_options_are_yaml(notebook):
    "Quarto stops at a caption with a bare colon"
    for src in cells(notebook[1], 'code'):
        lines = [m[1] for l in src.splitlines() if (m := re.match(r'#\| ?([\w-]+:(?: .*)?|  .*)$', l))]
        try: opts = yaml.safe_load('\n'.join(lines)) or {}
        except yaml.YAMLError as e: pytest.fail(f'{lines}\n{e}')
        assert all(isinstance(opts.get(k, ''), str) for k in ('fig-cap', 'fig-alt', 'label')), lines

def test_pictures_have_caption_and_alt_text(notebook):
    for c in notebook[1]['cells']:
        if not any(k.startswith('image/') for o in c.get('outputs', []) for k in o.get('data', {})): continue
        opts, code = make_readme.directives(''.join(c['source']))
        assert 'hide' in opts or (opts.get('fig-cap') and opts.get('fig-alt')), code[-200:]

def test_no_error_outputs(notebook):
    assert not [o for c in notebook[1]['cells'] for o in c.get('outputs', []) if o['output_type'] == 'error']

def test_citations_are_in_the_bibliography(notebook, root):
    keys = re.findall(r'^@\w+\{(\S+),', (root/'nbs/references.bib').read_text(encoding='utf-8'), re.M)
    assert len(keys) == len(set(keys))
    cited = set(re.findall(r'(?<![\w.])@([A-Za-z][\w:-]*\w)', prose(notebook[1])))
    cited = {c for c in cited if not re.match(r'(fig|tbl|sec|eq|lst|thm)-', c)}
    assert cited <= set(keys)
    if notebook[0].stem == 'index': assert not re.search(r'(?<![\w.])@[a-z]', prose(notebook[1])), 'README.md cannot resolve @ references'
