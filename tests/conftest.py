import json, os, re, shutil, subprocess, sys, sysconfig
from configparser import ConfigParser
from importlib.metadata import version
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'tools'))  # also where a process that a test starts imports this
import make_readme

BUILT_FROM = ['settings.ini', 'setup.py', 'pyproject.toml', 'MANIFEST.in', 'LICENSE', 'README.md', 'CHANGELOG.md',
              '_quarto.yml', 'nbs', 'ensemble_kd']

NO_TEXT = re.compile(make_readme.CODE.pattern + r'|\$\$.+?\$\$|\$[^$\n]+\$', re.M | re.S)

def read(path): return path.read_text(encoding='utf-8')
def cells(nb, kind): return [''.join(c['source']) for c in nb['cells'] if c['cell_type'] == kind]
def prose(nb): return NO_TEXT.sub('', '\n\n'.join(cells(nb, 'markdown')))

def nb_paths():
    "The notebooks nbdev sees"
    nbs = ROOT/'nbs'
    rel = [p.relative_to(nbs) for p in nbs.rglob('*.ipynb')]
    return sorted(nbs/p for p in rel if not any(o[0] in '_.' for o in p.parts))

@pytest.fixture(scope='session')
def root(): return ROOT

@pytest.fixture(scope='module')
def one_thread():
    "Such small networks are slower with more, and threads of several processes would wait for each other"
    import torch
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

def comparable(file, rows='seeds'):
    "A ledger, read strictly, without what may differ between two runs of the same thing"
    found = json.loads(file.read_text(), parse_constant=pytest.fail)
    for part in (found['provenance'], *found[rows]):
        for key in ('wall_s', 'date', 'peak_mem_mib', 'commit'): part.pop(key, None)
    return found

@pytest.fixture(scope='session')
def settings():
    ini = ConfigParser(delimiters=['='])
    ini.read(ROOT/'settings.ini', encoding='utf-8')
    return ini['DEFAULT']

@pytest.fixture(params=nb_paths(), ids=lambda p: p.stem)
def notebook(request):
    "Path and content of each notebook in turn"
    return request.param, json.loads(request.param.read_text(encoding='utf-8'))

def copy_tree(dest):
    "Copy what a build reads to `dest`"
    dest.mkdir()
    ignore = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints')
    for name in BUILT_FROM:
        if (ROOT/name).is_dir(): shutil.copytree(ROOT/name, dest/name, symlinks=True, ignore=ignore)
        else: shutil.copy2(ROOT/name, dest/name)
    return dest

@pytest.fixture(scope='session')
def run():
    "Run a command, the programs in the folders `path` and then this environment's scripts first; return its output"
    scripts = sysconfig.get_path('scripts')
    def _run(*cmd, cwd=None, path=(), **env):
        env = {k: v for k, v in os.environ.items() if k not in ('IN_TEST', 'PYTHONPATH')} | env
        env['PATH'] = os.pathsep.join([*map(str, path), scripts, env.get('PATH', '')])
        res = subprocess.run([str(o) for o in cmd], cwd=cwd, env=env, capture_output=True, text=True)
        assert res.returncode == 0, f'{" ".join(map(str, cmd))}\n{res.stdout}\n{res.stderr}'
        return res.stdout
    return _run

OFFLINE = ('No matching distribution', 'Could not find a version', 'Connection', 'connection',
           'Temporary failure', 'timed out')

@pytest.fixture(scope='session')
def pip_or_skip():
    "Run pip; skip where it cannot reach what it needs, fail on anything else"
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
    def _pip(*args):
        res = subprocess.run([*pip, *map(str, args)], capture_output=True, text=True)
        if res.returncode and any(o in res.stderr for o in OFFLINE):
            pytest.skip(f'pip cannot download: {res.stderr.strip().splitlines()[-1]}')
        assert res.returncode == 0, res.stderr
    return _pip

@pytest.fixture(scope='session')
def site(tmp_path_factory, pip_or_skip):
    "A folder with nothing but the package, installed from its wheel"
    tmp = tmp_path_factory.mktemp('wheel')
    new_enough = int(version('setuptools').split('.')[0]) >= 77  # else pip fetches what pyproject.toml asks for
    here = ['--no-build-isolation'] if new_enough else []
    pip_or_skip('wheel', '-q', '--no-deps', *here, '-w', tmp/'dist', copy_tree(tmp/'tree'))
    wheel, = (tmp/'dist').glob('*.whl')
    pip_or_skip('install', '-q', '--no-deps', '--target', tmp/'site', wheel)
    return tmp/'site'
