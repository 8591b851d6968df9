"What no notebook can check: the repository's parts are in step, the site builds, the package installs."
import json, os, re, sys
from importlib.metadata import distributions
import pytest, yaml
import ensemble_kd, make_readme
from conftest import NO_TEXT, ROOT, cells, copy_tree, nb_paths, read

def modules(d): return {p.name: read(p) for p in d.glob('*.py')}
def workflow(root, name): return yaml.safe_load(read(root/f'.github/workflows/{name}.yaml'))

# --- in step

@pytest.fixture(scope='module')
def exported(tmp_path_factory, run):
    "A copy of the project, its modules exported afresh and its notebooks cleaned"
    tree = copy_tree(tmp_path_factory.mktemp('exported')/'tree')
    for p in (tree/'ensemble_kd').glob('*.py'): p.unlink()
    run('nbdev_export', cwd=tree)
    run('nbdev_clean', cwd=tree)
    return tree

def test_modules_are_what_the_notebooks_export(root, exported):
    want, got = modules(exported/'ensemble_kd'), modules(root/'ensemble_kd')
    assert want.keys() == got.keys()
    assert [k for k in want if want[k] != got[k]] == [], 'run nbdev_export'

def test_notebooks_are_clean(root, exported):
    unclean = [p.name for p in nb_paths() if (exported/p.relative_to(root)).read_bytes() != p.read_bytes()]
    assert not unclean, 'run nbdev_clean'

def test_readme_is_what_index_says(root):
    text, pictures = make_readme.render(json.loads(read(root/'nbs/index.ipynb')))
    how = 'run python tools/make_readme.py'
    assert read(root/'README.md') == text, how
    assert all((root/p).read_bytes() == png for p, png in pictures.items()), how

def test_readme_has_the_command_that_ci_runs(root):
    *_, command = read(root/'.ci/run').strip().splitlines()
    assert command in read(root/'README.md').splitlines()
    assert os.access(root/'.ci/run', os.X_OK)

def test_version(root, settings):
    assert settings['version'] == ensemble_kd.__version__
    assert re.search(rf'^## \[?{re.escape(settings["version"])}\b', read(root/'CHANGELOG.md'), re.M)

def test_commands_are_listed(root, settings):
    "Every function that parses a command line is a command, and the other way round"
    found = [f'{name}=ensemble_kd.{p.stem}:{name}' for p in (root/'ensemble_kd').glob('*.py')
             for name in re.findall(r'^@call_parse\n(?:@.*\n)*def (\w+)', read(p), re.M)]
    assert sorted(found) == sorted(settings['console_scripts'].split())

def test_workflow_runs_the_versions_that_settings_claim(root, settings):
    test = workflow(root, 'test')['jobs']['test']['strategy']['matrix']['include']
    pythons = settings['pythons'].split()
    assert settings['min_python'] == pythons[0]
    assert {pythons[0], pythons[-1]} <= {o['python'] for o in test} <= {*pythons}
    floors = re.findall(r'([\w-]+)>=([\d.]+)', settings['requirements'])
    oldest = {f'{name}=={version}.*' for name, version in floors}
    assert any(oldest == {*o.get('pins', '').split()} and o['python'] == pythons[0] for o in test), oldest

IMPORTS_TORCH = re.compile(r'^\s*(import|from) .*\btorch\b', re.M)

def test_notebooks_take_one_core(notebook):
    "`nbdev_test` runs a notebook on each core; threads of torch's own on top of that make it wait for itself"
    code = cells(notebook[1], 'code')
    runs = not re.search(r'^- skip_exec: true', '\n'.join(cells(notebook[1], 'markdown')[:1]), re.M)
    if not runs or not any(IMPORTS_TORCH.search(o) for o in code): return
    hidden = [o for o in code if 'hide' in make_readme.directives(o)[0]]
    assert any('torch.set_num_threads(1)' in o for o in hidden)

# --- the site builds

QUARTO = '''#!/usr/bin/env python3
"Stands in for Quarto: an empty page for every notebook, and README.md if asked for one."
import re, sys
from pathlib import Path
docs = Path('_docs')
for p in Path().rglob('*.ipynb'):
    name = re.search(r'output-file: (\\S+?\\.html)', p.read_text(encoding='utf-8'))[1]
    (docs/p.parent).mkdir(parents=True, exist_ok=True)
    (docs/p.parent/f'{name}.md').touch()
if 'README.md' in sys.argv: (docs/'README.md').touch()
'''

@pytest.fixture(scope='module')
def built(run, tmp_path_factory):
    "A copy of the project after `nbdev_docs`, with a stand-in for Quarto, and llms.txt"
    tree, quarto = copy_tree(tmp_path_factory.mktemp('docs')/'tree'), tmp_path_factory.mktemp('bin')/'quarto'
    quarto.write_text(QUARTO)
    quarto.chmod(0o755)
    os.utime(tree/'nbs/index.ipynb')  # newer than README.md
    quiet = dict(PYTHONPATH=str(tree), OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')
    run('nbdev_docs', cwd=tree, path=[quarto.parent], **quiet)
    run(sys.executable, ROOT/'tools/make_llms.py', '_docs', cwd=tree)
    return tree

def test_notebooks_become_pages(built, root):
    "nbdev executes every cell that exports or imports: each must run without the cells between them"
    missing = [p.name for p in nb_paths() if not (built/'_proc'/p.relative_to(root/'nbs')).is_file()]
    assert not missing

TRACKED = ('README.md', '_quarto.yml', 'nbs/nbdev.yml', 'ensemble_kd/_modidx.py')

def test_nbdev_docs_leaves_tracked_files_alone(built, root):
    assert [o for o in TRACKED if read(built/o) != read(root/o)] == []

def test_sidebar_lists_every_page(built, root):
    sidebar = read(built/'nbs/sidebar.yml')
    assert [p.name for p in nb_paths() if str(p.relative_to(root/'nbs')) not in sidebar] == []

def test_llms_txt_lists_every_page(built):
    entry = r'^- \[(.+)\]\((https://\S+\.html\.md)\): (.+)$'
    titles, pages, descriptions = zip(*re.findall(entry, read(built/'_docs/llms.txt'), re.M))
    heads = [cells(json.loads(read(p)), 'markdown')[0].splitlines() for p in nb_paths()]
    assert sorted(titles) == sorted(o[0].removeprefix('# ') for o in heads)
    assert sorted(descriptions) == sorted(o[2].removeprefix('> ') for o in heads)
    assert len({*pages}) == len(heads)

def test_site_settings(root):
    link = root/'nbs/_quarto.yml'
    assert link.is_symlink() and os.readlink(link) == '../_quarto.yml'
    conf = yaml.safe_load(read(link))
    assert conf['format']['html']['keep-md'] and conf['format']['commonmark'] == 'default'
    assert 'llms-txt' not in conf['website'], 'releases of Quarto before 1.9.21 stop at it; see tools/make_llms.py'

def test_workflows_parse(root):
    flows = list((root/'.github/workflows').glob('*.yaml'))
    assert flows and all(yaml.safe_load(read(o))['jobs'] for o in flows)

def test_docs_workflow(root):
    "One workflow builds the site, with one release of Quarto; the tests and the deployment use it"
    steps = workflow(root, 'docs')['jobs']['build']['steps']
    quarto, = [o for o in steps if 'quarto-actions' in o.get('uses', '')]
    assert re.fullmatch(r'1\.\d+\.\d+', quarto['with']['version'])
    commands = [o['run'] for o in steps if 'run' in o]
    assert commands.index('nbdev_docs') < commands.index('python tools/make_llms.py _docs')
    for name in ('test', 'deploy'):
        jobs = workflow(root, name)['jobs'].values()
        assert './.github/workflows/docs.yaml' in [o.get('uses') for o in jobs], name

# --- installs

LIGHT = {'ensemble_kd', 'fastcore', 'numpy', 'torch', 'tqdm'}

IMPORT_EACH = f'''
import os, pkgutil, sys
from importlib import import_module
import torch
import ensemble_kd
before = {{*sys.modules}}
for name in [o.name for o in pkgutil.iter_modules(ensemble_kd.__path__)]:
    child = os.fork()                                            # a fresh process that has torch already
    if child:
        if os.waitpid(child, 0)[1]: sys.exit(f'{{name}} cannot be imported')
        continue
    import_module(f'ensemble_kd.{{name}}')
    new = {{*sys.modules}} - before
    heavy = {{o.split('.')[0] for o in new}} - {{*sys.stdlib_module_names}} - {LIGHT}
    heavy |= new & {{'torch._dynamo', 'torch._inductor'}}
    if heavy: print(name, 'imports', *sorted(heavy))
    sys.stdout.flush()
    os._exit(0)
'''

def test_modules_import_nothing_heavy(root, run):
    "What takes long to import is imported by the functions that need it"
    assert run(sys.executable, '-c', IMPORT_EACH, cwd=root) == ''

NAMES = '''
import sys, ensemble_kd
assert not {'torch', 'numpy', 'fastcore'} & {*sys.modules}, 'import ensemble_kd imports too much'
names = ['Ensemble', 'kd_loss', 'study']
assert ensemble_kd.__all__ == names and {*names} <= {*dir(ensemble_kd)} and 'torch' not in sys.modules
from ensemble_kd import kd_loss
assert 'ensemble_kd.distill' in sys.modules and 'ensemble_kd.studies' not in sys.modules
from ensemble_kd import *
from ensemble_kd import distill, members, studies
assert (Ensemble, kd_loss, study) == (members.Ensemble, distill.kd_loss, studies.study)
assert not hasattr(ensemble_kd, 'kd_los') and ensemble_kd.__doc__
'''

def test_three_names_are_there_and_cost_nothing(root, run): run(sys.executable, '-c', NAMES, cwd=root)

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
    script = tmp_path/'use_all.py'  # a file: fastcore parses arguments only for a real main module
    script.write_text(USE_ALL)
    out = run(sys.executable, script, cwd=tmp_path, PYTHONPATH=os.pathsep.join([str(tmp_path/'fastcore'), str(site)]))
    fastcore, n, path = out.splitlines()[-1].split('|')
    assert fastcore.startswith(version.rstrip('*'))
    assert int(n) == len(settings['console_scripts'].split())
    assert path.startswith(str(site))

@pytest.fixture
def wheel(site): return next(o for o in distributions(path=[str(site)]) if o.name == 'ensemble_kd')

def test_metadata(wheel, settings):
    meta = wheel.metadata
    assert meta['License-Expression'] == 'Apache-2.0' and 'License' not in meta
    assert meta['Requires-Python'] == f">={settings['min_python']}"
    assert {*meta.get_all('Requires-Dist')} >= {*settings['requirements'].split()}
    kinds = meta.get_all('Classifier')
    pythons = [m[1] for o in kinds if (m := re.fullmatch(r'Programming Language :: Python :: (\d\.\d+)', o))]
    assert pythons == settings['pythons'].split()
    assert not [o for o in kinds if o.startswith('License ::')]
    commands = {o.name for o in wheel.entry_points if o.group == 'console_scripts'}
    assert commands == {o.split('=')[0] for o in settings['console_scripts'].split()}

def test_types_are_shipped(site): assert (site/'ensemble_kd/py.typed').is_file()

def test_readme_s_links_work_on_the_package_index(root, wheel, settings):
    "Its relative links lead to files of the repository, and are absolute in the package's description"
    links = re.compile(r'(!?)\[[^\]]*\]\(([^)\s]+)\)')
    def found(md): return links.findall(NO_TEXT.sub('', md))
    readme, described = found(read(root/'README.md')), found(wheel.metadata['Description'])
    at = {'!': f"{settings['git_url']}/raw/main/", '': f"{settings['git_url']}/blob/main/"}
    relative = [o for o in readme if ':' not in o[1]]
    assert relative and all((root/path.partition('#')[0]).is_file() for _, path in relative)
    assert described == [(kind, at[kind] + path) if ':' not in path else (kind, path) for kind, path in readme]
