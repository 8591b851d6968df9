"The command `ekd_cifar` as a process: results, resuming after every kind of accident, bad input; and the compiled bfloat16 path."
import json, os, resource, shutil, signal, subprocess, sys, time
from dataclasses import replace
from pathlib import Path
import pytest, torch
from torch import nn

RUN = 'import sys; from ensemble_kd.cifar import ekd_cifar; sys.argv[0] = "ekd_cifar"; sys.exit(ekd_cifar())'
TINY = '--data textures --net tiny --epochs 2 --members 2 --device cpu'.split()
ROW = 'textures-tiny'

def command(tmp, out, *args):
    script = Path(tmp)/'run.py'; script.write_text(RUN)        # a file: fastcore parses arguments only for a real main module
    return [sys.executable, str(script), *TINY, '--out', str(out), *args]

ENV = os.environ | dict(OMP_NUM_THREADS='1', MPLBACKEND='Agg')

def ekd_cifar(tmp, out, *args, **kw):
    return subprocess.run(command(tmp, out, *args), env=ENV, capture_output=True, text=True, timeout=120, **kw)

def ledger(out):
    "What must not depend on when and how it was computed."
    d = json.loads((Path(out)/ROW/'cifar.json').read_text()); d.pop('images_per_s'); d.pop('provenance')
    return d

def members(out): return {p.name: p.stat().st_mtime_ns for p in (Path(out)/ROW/'members').glob('*.npz')}

@pytest.fixture(scope='module')
def done(tmp_path_factory):
    tmp = tmp_path_factory.mktemp('cifar'); r = ekd_cifar(tmp, tmp/'a')
    assert r.returncode == 0, r.stderr
    return tmp/'a', r

@pytest.fixture
def copy(done, tmp_path): return Path(shutil.copytree(done[0], tmp_path/'copy'))

def test_ledger_table_and_picture(done):
    out, r = done; d = ledger(out)
    assert d['done'] == d['units'] == len(members(out)) == 32 and d['spread'] == 'groups'
    assert {'cifar.ensemble_gain', 'cifar.kd_gain', 'cifar.self_gain', 'cifar.kd_keeps', 'cifar.joint_gain'} <= {c['id'] for c in d['claims']}
    for c in d['claims']: assert c['verdict'] in ('reproduced', 'partly', 'not') and c['n'] == 4 and c['id'] in r.stdout
    assert '95.22' in r.stdout and 'ensemble of KD' in r.stdout and (out/ROW/'cifar.png').read_bytes().startswith(b'\x89PNG')

def test_kill_9_and_resume(done, tmp_path, capsys):
    out = tmp_path/'k'
    p = subprocess.Popen(command(tmp_path, out), env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(members(out)) < 5: assert p.poll() is None and time.monotonic() < end; time.sleep(.01)
    p.send_signal(signal.SIGKILL); p.wait()
    before = members(out); assert 5 <= len(before) < 32
    assert f'{len(before)} of 32 networks' in here(capsys, out, show=True)[1]                # the table, with what is there
    assert members(out) == before
    r = ekd_cifar(tmp_path, out); assert r.returncode == 0, r.stderr
    assert before.items() <= members(out).items() and ledger(out) == ledger(done[0])

def test_damaged_and_half_written_members(done, copy, tmp_path):
    want, folder = ledger(done[0]), copy/ROW/'members'
    def damage(name, f): p = folder/name; b = bytearray(p.read_bytes()); p.write_bytes(f(b))
    def flip(b): b[len(b)//2] ^= 4; return b
    damage('single-0-1.npz', flip); damage('kd-1-0.npz', lambda b: b[:len(b)//3]); damage('self-2-1.npz', lambda b: b'')
    (folder/'.joint-0-0.npz.tmp').write_bytes(b'half')
    before = members(copy)
    r = ekd_cifar(tmp_path, copy); assert r.returncode == 0, r.stderr
    assert (r.stdout + r.stderr).count('is damaged') == 3
    assert {k for k, v in members(copy).items() if before[k] != v} == {'single-0-1.npz', 'kd-1-0.npz', 'self-2-1.npz'}
    assert ledger(copy) == want

def test_any_flipped_byte_is_found_or_harmless(copy):
    from ensemble_kd.cifar import Run, Unit, choose_rows
    p, = choose_rows('cpu', 'textures', 'tiny', 2); p = replace(p, recipe=replace(p.recipe, epochs=2))
    run, unit = Run(p, copy/ROW, tell=lambda s: None), Unit('smooth', 0, 0)
    good, want = run.file(unit).read_bytes(), run.load(unit)
    for at in range(0, len(good), max(1, len(good)//150)):
        bad = bytearray(good); bad[at] ^= 0x55; run.file(unit).write_bytes(bad)
        got = run.load(unit)
        assert got is None or all(torch.equal(got[k], want[k]) for k in ('test', 'train'))

def test_full_disk(done, tmp_path):
    out = tmp_path/'full'
    r = ekd_cifar(tmp_path, out, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000)))
    line = r.stderr.strip().splitlines()[-1]
    assert r.returncode == 2 and line.startswith('ekd_cifar: cannot write') and 'run the same command again' in line and 'Traceback' not in r.stderr
    assert not list((out/ROW/'members').iterdir())             # nothing half-written stays

def here(capsys, out, **kw):
    "The command in this process, with tiny settings: exit status, standard output, last line of standard error."
    from ensemble_kd.cifar import ekd_cifar
    status = 0
    try: ekd_cifar(**dict(data='textures', net='tiny', epochs=2, members=2, device='cpu', out=str(out)) | kw)
    except SystemExit as e: status = e.code
    got = capsys.readouterr()
    return status, got.out, (got.err.strip().splitlines() or [''])[-1]

@pytest.mark.parametrize('args, says', [
    (dict(preset='gpu'), 'expected one of cpu'), (dict(data='mnist'), 'expected one of cifar10'), (dict(net='28x2'), 'depth-width'),
    (dict(device='gpu'), 'expected one of auto, cpu'), (dict(members=0), 'at least one member'), (dict(epochs=0), 'epochs and batch'),
    (dict(seed=-1), 'seed ≥ 0'), (dict(members=3), 'other settings'), (dict(seed=1), 'other settings'), (dict(augment=True), 'other settings'),
    (dict(data='cifar10', dir='nowhere'), 'nowhere')])
def test_bad_input_is_one_line(done, args, says, tmp_path, capsys):
    status, _, line = here(capsys, done[0] if says == 'other settings' else tmp_path/'new', **args)
    assert status == 2 and line.startswith('ekd_cifar: ') and says in line

def test_bad_option_of_the_command(tmp_path):
    r = ekd_cifar(tmp_path, tmp_path/'new', '--preset', 'gpu')
    assert r.returncode == 2 and r.stderr.startswith('ekd_cifar: unknown preset') and r.stderr.count('\n') == 1

def test_dry_run_trains_nothing(tmp_path, capsys):
    status, out, _ = here(capsys, tmp_path/'d', data='cifar10', net='10-1', preset='fast', dry=True)
    assert status == 0 and 'nothing was trained' in out and 'GMAC' in out and 'GiB' in out and not (tmp_path/'d').exists()

@pytest.mark.parametrize('mode', ['eager', 'default'])
def test_compiled_bfloat16_with_a_live_teacher(mode, monkeypatch):
    "The path of the GPU presets on this CPU: compiled, bfloat16, channels last, augmented, live teacher; 'eager' traces without a C++ compiler."
    if mode == 'default' and not shutil.which('g++'): pytest.skip('needs a C++ compiler')
    from ensemble_kd.cifar import GPU, Recipe, Trainer, live_teacher, load_data
    torch._dynamo.reset()
    if mode == 'eager':
        real = torch.compile
        monkeypatch.setattr(torch, 'compile', lambda f, mode=None: real(f, backend='eager'))
    images, r = load_data('textures'), Recipe(epochs=1, batch=100, lr=.1, **GPU)
    def make(): return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(392, 4))
    fast, plain = Trainer(make, r), Trainer(make, replace(r, compile=''))
    a, b = fast.fit(images, 1), plain.fit(images, 1)
    assert abs(a[0]-b[0]) < .05*b[0]
    if mode == 'default': return
    states, graphs = [fast.state()], torch._dynamo.utils.counters['stats']['unique_graphs']
    fast.fit(images, 2); states.append(fast.state())
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] == graphs     # fresh weights, same code
    for some in (states, states[:1]): fast.fit(images, 3, teacher=live_teacher(fast, some))
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] == graphs + 1 # the teachers', one for all of them
    joint = Trainer(make, r, members=3)
    joint.fit(images, 4); assert joint.logits(images.x_test, images.stats).isfinite().all()
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] <= graphs + 3 # the pass without gradients, and evaluation: not one for each network

@pytest.mark.skipif(not os.environ.get('ENSEMBLE_KD_DATA'), reason='needs CIFAR: ENSEMBLE_KD_DATA')
def test_real_cifar(tmp_path):
    from ensemble_kd.cifar import Run, Unit, choose_rows
    p, = choose_rows('cpu'); run = Run(replace(p, recipe=replace(p.recipe, epochs=1)), tmp_path/'real').open()
    run.train(unit := Unit('single', 0, 0)); got = run.load(unit)
    assert got['test'].shape == (10_000, 10) and (got['test'].argmax(-1) == run.images(0).y_test).float().mean() > .2
