"Getting CIFAR when things go wrong: offline, damaged or half-written files, a full disk, a broken download."
import hashlib, http.server, io, os, pickle, re, subprocess, sys, tarfile, threading
from functools import partial
from pathlib import Path
import numpy as np, pytest, torch
from torch.nn import functional as nnf
from torchvision import datasets
from ensemble_kd import images
from ensemble_kd.images import STATS, cache_dir, channel_stats, load_images, textures
from ensemble_kd.resnet import seeded, small_net, wide_resnet

DATA = os.environ.get('ENSEMBLE_KD_DATA')  # as the tests were started

@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    "No test sees the user's cache or data"
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    monkeypatch.delenv('ENSEMBLE_KD_DATA', raising=False)
    return tmp_path/'cache'/'ensemble_kd'

@pytest.fixture(scope='module')
def arrays():
    data = textures(100, 50)
    x_train, x_test = (np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy()) for x in (data.x_train, data.x_test))
    labels = dict(y_train=data.y_train.numpy(), y_test=data.y_test.numpy())
    return dict(x_train=x_train, x_test=x_test, classes=np.array(data.classes)) | labels

def error(kind, f, *words):
    "The one line that `f` raises, which holds the words"
    with pytest.raises(kind) as e: f()
    text = str(e.value)
    assert '\n' not in text and all(w in text for w in words), text
    return text

# --- where a set is looked for

def test_cache_follows_the_environment(own_cache, monkeypatch):
    assert cache_dir() == own_cache
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert cache_dir() == Path.home()/'.cache/ensemble_kd'

def test_folder_before_variable_before_cache(arrays, tmp_path, own_cache, monkeypatch):
    places = dict(folder=tmp_path/'a', variable=tmp_path/'b', cache=own_cache)
    for name, path in places.items():
        classes = np.array([f'{name}{j}' for j in range(10)])
        images._write_npz(path/'cifar10.npz', arrays | dict(classes=classes))
    def seen(*folder): return load_images('cifar10', *folder, download=False).classes[0]
    assert seen() == 'cache0'
    for path in (places['variable'], places['variable']/'cifar10.npz'):
        monkeypatch.setenv('ENSEMBLE_KD_DATA', str(path))
        assert seen() == 'variable0'
    for path in (places['folder'], places['folder']/'cifar10.npz'): assert seen(path) == 'folder0'

def test_a_named_place_is_never_passed_over(arrays, tmp_path, own_cache, monkeypatch):
    images._write_npz(own_cache/'cifar10.npz', arrays)
    error(FileNotFoundError, lambda: load_images('cifar10', tmp_path/'nothing'), 'nothing', 'which folder names')
    monkeypatch.setenv('ENSEMBLE_KD_DATA', str(tmp_path))
    error(FileNotFoundError, lambda: load_images('cifar10'), 'cifar10.npz', 'which ENSEMBLE_KD_DATA names')

def test_nothing_and_no_download(own_cache):
    wanted = str(own_cache/'cifar100.npz')
    error(FileNotFoundError, lambda: load_images('cifar100', download=False), wanted, 'ENSEMBLE_KD_DATA')
    assert not own_cache.exists()

# --- files that are not what they should be

@pytest.mark.parametrize('keep', [0, 3, 1000, .5, .999, -1])
def test_half_written(keep, arrays, own_cache):
    path = own_cache/'cifar10.npz'
    images._write_npz(path, arrays)
    data = path.read_bytes()
    path.write_bytes(data[:int(keep*len(data)) if isinstance(keep, float) else keep])
    error(ValueError, lambda: load_images('cifar10'), str(path), 'is damaged', 'delete it')

def test_a_flipped_bit_changes_nothing_unnoticed(arrays, own_cache):
    path = own_cache/'cifar10.npz'
    images._write_npz(path, arrays)
    whole, want = path.read_bytes(), load_images('cifar10')
    n, rng = len(whole), np.random.default_rng(0)              # most flips in headers and the table of contents
    for at in np.concatenate([rng.integers(*o) for o in ((0, 300, 60), (0, n, 30), (n-1500, n, 150))]):
        bad = bytearray(whole)
        bad[at] ^= 1 << rng.integers(8)
        path.write_bytes(bad)
        try: got = load_images('cifar10')
        except ValueError as e: assert str(path) in str(e)
        else:                                                  # the flip hit a byte without meaning, a date
            assert (got.x_train == want.x_train).all() and (got.x_test == want.x_test).all()
            assert (got.y_train == want.y_train).all() and got.classes == want.classes

def test_wrong_checksum(arrays, own_cache):
    own_cache.mkdir(parents=True)
    path, other = own_cache/'cifar10.npz', arrays | dict(y_test=arrays['y_test'][::-1].copy())
    np.savez(path, **arrays, sha256=images._sha256(other))
    error(ValueError, lambda: load_images('cifar10'), str(path), 'its checksum is another', 'delete it')

def test_a_plain_file_needs_no_checksum(arrays, tmp_path):
    np.savez(tmp_path/'cifar10.npz', **arrays | dict(y_train=arrays['y_train'].astype(np.uint8)))
    assert load_images('cifar10', tmp_path).y_train.dtype == torch.int64

WRONG = {'y_test is not a file': lambda a: {k: a[k] for k in ('x_train', 'y_train', 'x_test')},
         'x_train must be (n, 32, 32, 3)': lambda a: dict(x_train=a['x_train'].transpose(0, 3, 1, 2)),
         'x_test must be bytes': lambda a: dict(x_test=a['x_test'].astype(np.float32)),
         'x_test must hold at least one': lambda a: dict(x_test=a['x_test'][:0], y_test=a['y_test'][:0]),
         'y_train must be (100)': lambda a: dict(y_train=a['y_train'][:99]),
         'y_train must be whole numbers': lambda a: dict(y_train=a['y_train'] + .5),
         'y_test must be whole numbers from': lambda a: dict(y_test=a['y_test'] - 1),
         'from 0 to 9; got 9 to 18': lambda a: dict(y_test=a['y_test'] + 9),
         "can't convert": lambda a: dict(y_train=a['y_train'].astype(str)),
         'it names 9 classes': lambda a: dict(classes=a['classes'][:9])}

@pytest.mark.parametrize('why', WRONG)
def test_wrong_arrays(why, arrays, tmp_path):
    changed = WRONG[why](arrays)
    np.savez(tmp_path/'cifar10.npz', **changed if why.startswith('y_test is not') else arrays | changed)
    error(ValueError, lambda: load_images('cifar10', tmp_path), str(tmp_path/'cifar10.npz'), why, 'replace the file')

class Bomb:
    def __init__(self, path): self.path = path
    def __reduce__(self): return open, (str(self.path), 'w')

@pytest.mark.parametrize('how', ['inside', 'bare pickle', 'single array', 'text'])
def test_nothing_is_unpickled(how, arrays, tmp_path):
    path, fuse = tmp_path/'cifar10.npz', tmp_path/'went off'
    bombs = np.array([Bomb(fuse)]*10, dtype=object)
    if how == 'inside': np.savez(path, **arrays | dict(classes=bombs))
    elif how == 'bare pickle': path.write_bytes(pickle.dumps(Bomb(fuse)))
    elif how == 'single array':
        with open(path, 'wb') as f: np.save(f, arrays['x_train'])
    else: path.write_text('<html>404</html>')
    error(ValueError, lambda: load_images('cifar10', path), str(path), 'is damaged')
    assert not fuse.exists()

# --- a full disk

FULL = '''
import resource, signal, sys, numpy as np
from ensemble_kd import images
from ensemble_kd.images import textures
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)          # as on a full disk: write() fails, the process lives
d = textures(100, 50)
a = dict(x_train=d.x_train.permute(0, 2, 3, 1).numpy(), y_train=d.y_train.numpy(), y_test=d.y_test.numpy(),
         x_test=d.x_test.permute(0, 2, 3, 1).numpy(), classes=np.array(d.classes))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try: images._write_npz(images.cache_dir()/'cifar10.npz', a)
except OSError as e: print(e)
'''

@pytest.mark.skipif(os.name != 'posix', reason='needs RLIMIT_FSIZE')
def test_full_disk_leaves_the_old_file(arrays, own_cache, tmp_path, root):
    pytest.importorskip('resource')
    path, script = own_cache/'cifar10.npz', tmp_path/'full.py'
    images._write_npz(path, arrays)
    before = path.read_bytes()
    script.write_text(FULL)
    env = os.environ | dict(PYTHONPATH=str(root))
    res = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True)
    assert res.returncode == 0, res.stderr
    assert len(res.stdout.splitlines()) == 1 and 'cannot write' in res.stdout and 'XDG_CACHE_HOME' in res.stdout
    assert [p.name for p in own_cache.iterdir()] == ['cifar10.npz'] and path.read_bytes() == before

def test_a_cache_that_is_a_file(tmp_path, monkeypatch):
    (tmp_path/'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'file'))
    error(OSError, lambda: load_images('cifar10'), 'cifar10', 'ENSEMBLE_KD_DATA')

# --- the download, by torchvision's own code from a server here

def archive(folder, arrays, cls):
    "CIFAR's archive in small, its checksums as torchvision's class wants them"
    def part(name):
        flat = arrays[f'x_{name}'].transpose(0, 3, 1, 2).reshape(-1, 3*32*32)
        return dict(data=flat, labels=arrays[f'y_{name}'].tolist())
    parts = {'data_batch_1': part('train'), 'test_batch': part('test'),
             'batches.meta': dict(label_names=arrays['classes'].tolist())}
    files = {k: pickle.dumps(v) for k, v in parts.items()}
    md5 = {k: hashlib.md5(v).hexdigest() for k, v in files.items()}
    with tarfile.open(folder/'small.tar.gz', 'w:gz') as tar:
        for k, v in files.items():
            info = tarfile.TarInfo(f'{cls.base_folder}/{k}')
            info.size = len(v)
            tar.addfile(info, io.BytesIO(v))
    lists = dict(train_list=[['data_batch_1', md5['data_batch_1']]], test_list=[['test_batch', md5['test_batch']]])
    sums = dict(meta=cls.meta | dict(md5=md5['batches.meta']),
                tgz_md5=hashlib.md5((folder/'small.tar.gz').read_bytes()).hexdigest())
    return lists | sums

class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass

@pytest.fixture
def server(tmp_path, arrays, monkeypatch):
    "Serves the small archive; torchvision is pointed to it"
    (tmp_path/'www').mkdir()
    web = http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(tmp_path/'www')))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    for k in [k for k in os.environ if k.lower().endswith('_proxy')]: monkeypatch.delenv(k)
    url = f'http://127.0.0.1:{web.server_port}/small.tar.gz'
    settings = archive(tmp_path/'www', arrays, datasets.CIFAR10) | dict(url=url)
    for k, v in settings.items(): monkeypatch.setattr(datasets.CIFAR10, k, v)
    yield web
    web.shutdown(); web.server_close()

def test_download_then_cache(server, arrays, own_cache):
    got = load_images('cifar10')
    assert (got.x_train.permute(0, 2, 3, 1).numpy() == arrays['x_train']).all()
    assert (got.y_test.numpy() == arrays['y_test']).all()
    assert [p.name for p in own_cache.iterdir()] == ['cifar10.npz']       # archive and pickles are gone
    server.shutdown(); server.server_close()                              # from now on offline
    again = load_images('cifar10')
    assert (again.x_train == got.x_train).all() and again.classes == got.classes == tuple(arrays['classes'])

def test_a_damaged_download_is_refused(server, own_cache, monkeypatch):
    monkeypatch.setattr(datasets.CIFAR10, 'tgz_md5', '0'*32)
    error(OSError, lambda: load_images('cifar10'), 'cannot download cifar10', 'ENSEMBLE_KD_DATA')
    assert not list(own_cache.iterdir())

def test_a_damaged_part_is_never_unpickled(server, tmp_path, own_cache, monkeypatch):
    monkeypatch.setattr(datasets.CIFAR10, 'test_list', [['test_batch', '0'*32]])
    error(OSError, lambda: load_images('cifar10'), 'cannot download cifar10')
    assert not list(own_cache.iterdir())

def test_offline(server, own_cache):
    server.shutdown(); server.server_close()
    text = error(OSError, lambda: load_images('cifar10'), 'cannot download cifar10', 'ENSEMBLE_KD_DATA', 'folder')
    assert len(text) < 400 and not list(own_cache.iterdir())

# --- networks through a real compiler

@pytest.mark.slow
@pytest.mark.parametrize('kind', [small_net, partial(wide_resnet, '10-1')], ids=['small_net', '10-1'])
def test_compiled_step_equals_plain(kind):
    x, y = torch.randn(16, 3, 32, 32).to(memory_format=torch.channels_last), torch.arange(16) % 10
    plain, net = (kind().to(memory_format=torch.channels_last) for _ in range(2))
    fast = torch.compile(net, fullgraph=True)
    for seed in (0, 1):                                    # compiled once, fresh weights for the next member
        for o in (plain, net):
            o.load_state_dict(seeded(kind, seed).state_dict())
            o.zero_grad()
        for o in (plain, fast): nnf.cross_entropy(o(x), y).backward()
        for p, q in zip(plain.parameters(), net.parameters()): assert torch.allclose(p.grad, q.grad, atol=1e-3)

# --- the benchmark and the real images

def test_benchmark_runs(root, tmp_path, run):
    env = dict(PYTHONPATH=str(root), OMP_NUM_THREADS='1', XDG_CACHE_HOME=str(tmp_path), ENSEMBLE_KD_DATA='')
    out = run(sys.executable, root/'benchmarks/images.py', '--quick', '--json', tmp_path/'out.json', **env)
    assert 'members skipped' in out and (tmp_path/'out.json').is_file()
    assert len(re.findall('^loader', out, re.M)) == 4

@pytest.fixture(params=['cifar10', 'cifar100'])
def real(request):
    where = DATA
    if not where or not (Path(where)/f'{request.param}.npz').is_file():
        pytest.skip(f'ENSEMBLE_KD_DATA names no folder with {request.param}.npz')
    return load_images(request.param, where)

def test_real_images(real):
    k = len(real.classes)
    per_class = len(real.y_train) // k
    assert real.y_train.bincount().tolist() == [per_class]*k
    assert real.y_test.bincount().tolist() == [per_class//5]*k
    if len(real.y_train) == 50000: assert np.allclose(STATS[real.name], channel_stats(real.x_train), atol=1e-5)
