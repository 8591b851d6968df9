"`ekd_cifar` as a user runs it: results, killed and resumed, damaged, changed; the compiled bfloat16 path; Figure 1."
import json, os, shutil, signal, subprocess, sys, time
from dataclasses import replace
from pathlib import Path
import pytest, torch
from torch import nn
from ensemble_kd.cifar import GPU, PRESETS, Experiment, Network, Preset
from ensemble_kd.cifar import choose_rows, ekd_cifar, group_images, load_data, run_row
from ensemble_kd.images import textures
from ensemble_kd.inputs import ImageData
from ensemble_kd.trainer import Recipe, Trainer, live_teacher

pytestmark = pytest.mark.usefixtures('one_thread')

TINY = dict(data='textures', net='tiny', epochs=2, members=2, device='cpu')
ROW, NETWORKS = 'textures-tiny', 32
ENV = os.environ | dict(OMP_NUM_THREADS='1', MPLBACKEND='Agg')

def command(out, **settings): return ekd_cifar(**TINY | dict(out=str(out)) | settings)

def ledger(out):
    "What must not depend on when and how it was computed"
    found = json.loads((out/ROW/'cifar.json').read_text(), parse_constant=pytest.fail)
    for key in ('images_per_s', 'provenance'): found.pop(key)
    for row in found['rows']: row.pop('wall_s')
    return found

def units(out): return {p.stem: p.stat().st_mtime_ns for p in (out/ROW/'units').glob('*.safetensors')}

@pytest.fixture(scope='module')
def done(tmp_path_factory):
    "The folder of a finished run"
    out = tmp_path_factory.mktemp('cifar')/'done'
    command(out)
    return out

@pytest.fixture
def copy(done, tmp_path): return Path(shutil.copytree(done, tmp_path/'copy'))

def test_ledger_table_and_picture(done, capsys):
    command(done, show=True)
    found, out = ledger(done), capsys.readouterr().out
    assert found['done'] == found['networks'] == len(units(done)) == NETWORKS
    ids = {f'cifar.{o}' for o in ('ensemble', 'kd', 'self_kd', 'kd_keeps', 'average', 'ensemble_over_average')}
    assert ids <= {c['id'] for c in found['claims']}
    assert all(c['n'] == 4 and c['id'] in out for c in found['claims'])
    assert all(o in out for o in ('95.22', 'ensemble of KD', 'train the average', f'{NETWORKS} of {NETWORKS} networks'))
    assert (done/ROW/'cifar.png').read_bytes().startswith(b'\x89PNG')

def test_killed_and_resumed_is_identical(done, tmp_path, capsys):
    out = tmp_path/'killed'
    code = f'from ensemble_kd.cifar import ekd_cifar; ekd_cifar(**{TINY | dict(out=str(out))})'
    p = subprocess.Popen([sys.executable, '-c', code], env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while p.poll() is None and len(units(out)) < 5: time.sleep(.01)
    p.send_signal(signal.SIGKILL)
    assert p.wait() == -signal.SIGKILL
    before = units(out)
    command(out, show=True)                                 # the table with what is there, and nothing trained
    assert f'{len(before)} of {NETWORKS} networks' in capsys.readouterr().out and units(out) == before
    command(out)
    assert before.items() <= units(out).items() and ledger(out) == ledger(done)

def test_damaged_networks_are_trained_again(done, copy, capsys):
    def flipped(b): return b[:len(b)//2] + bytes([b[len(b)//2] ^ 4]) + b[len(b)//2+1:]
    damage = {'single-0-1': flipped, 'kd-1-0': lambda b: b[:len(b)//3], 'self_kd-2-1': lambda b: b''}
    for name, broken in damage.items():
        file = copy/ROW/'units'/f'{name}.safetensors'
        file.write_bytes(broken(file.read_bytes()))
    before = units(copy)
    command(copy)
    assert capsys.readouterr().out.count('is damaged') == 3
    assert {k for k, v in units(copy).items() if v != before[k]} == {*damage}
    assert ledger(copy) == ledger(done)

@pytest.mark.parametrize('change, says', [
    (dict(members=3), 'single was 2, now 3'), (dict(seed=1), 'seed was 0, now 1'), (dict(augment=True), 'recipe.augment was False, now True')])
def test_a_folder_of_another_run_is_refused(done, change, says, capsys):
    with pytest.raises(SystemExit) as e: command(done, **change)
    line, = capsys.readouterr().err.strip().splitlines()
    assert e.value.code == 2 and line.startswith('ekd_cifar: ') and 'other settings' in line and says in line

def test_dry_run_trains_nothing(tmp_path, capsys):
    command(tmp_path/'dry', data='cifar10', net='10-1', preset='fast', dry=True)
    out = capsys.readouterr().out
    assert all(o in out for o in ('nothing was trained', 'GMAC', 'GiB')) and not (tmp_path/'dry').exists()

def test_training_images_take_the_place_of_test_images():
    "`--validate` shows no test image to anything"
    p, = choose_rows('cpu', 'textures', 'tiny', validate=True, n_valid=100)
    images = load_data('textures')
    some = group_images(images, p, 0, 0)
    seen = {o.numpy().tobytes() for x in (some.x_train, some.x_test) for o in x}
    assert len(seen) == len(some.x_train)+100 and not seen & {o.numpy().tobytes() for o in images.x_test}

def convnet():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(392, 4))

@pytest.mark.parametrize('mode', ['eager', pytest.param('default', marks=pytest.mark.slow)])
def test_compiled_bfloat16_with_a_live_teacher(mode, monkeypatch):
    "The path of the GPU presets on this CPU; 'eager' traces as a compiler would, and needs none"
    if mode == 'default' and not shutil.which('g++'): pytest.skip('needs a C++ compiler')
    torch._dynamo.reset()
    if mode == 'eager':
        real = torch.compile
        monkeypatch.setattr(torch, 'compile', lambda f, mode=None: real(f, backend='eager'))
    data, recipe = ImageData(textures(800, 500, classes=4, size=16)), Recipe(epochs=1, batch=100, lr=.1, **GPU)
    fast, plain = Trainer(convnet, recipe), Trainer(convnet, replace(recipe, compile=''))
    a, b = fast.fit(data, 1), plain.fit(data, 1)
    assert abs(a[0]-b[0]) < .05*b[0]
    def graphs(): return torch._dynamo.utils.counters['stats']['unique_graphs']
    states, before = [fast.state()], graphs()
    fast.fit(data, 2)
    states.append(fast.state())
    assert graphs() == before                               # fresh weights, same code
    for some in (states, states[:1]): fast.fit(data, 3, teacher=live_teacher(fast, some))
    assert graphs() == before+1                             # the teachers', one for all of them
    average = Trainer(convnet, recipe, members=3)
    average.fit(data, 4)
    assert average.logits(data, 'test').isfinite().all()

def test_figure_1_by_the_machinery_of_the_tables(tmp_path):
    "A linearised network as every unit"
    recipe = Recipe(epochs=5, batch=40, lr=.1, weight_decay=0., average_lr=2., augment=True, bounded=True, temperature=4.)
    p = Preset('textures', 'tiny-ntk', recipe, n_train=400, single=2, average=2, kd=1, self_kd=1, smoothing=0)
    found = run_row(Experiment(p, tmp_path/'run'), progress=False)
    assert found['done'] == found['networks'] == 5
    assert {c['id'] for c in found['claims']} == {'ntk.ensemble', 'ntk.average', 'ntk.kd', 'ntk.self_kd'}
    accuracy = [o['accuracy'] for o in found['rows'][0]['columns']['single']]
    assert min(accuracy) > 35 and accuracy[0] != accuracy[1]     # four classes; each has weights of its own
    assert [(o.data, o.net) for o in PRESETS['ntk']] == [('cifar10', '10-4-ntk'), ('cifar100', '10-4-ntk')]

@pytest.mark.skipif(not os.environ.get('ENSEMBLE_KD_DATA'), reason='needs CIFAR: ENSEMBLE_KD_DATA')
def test_real_cifar(tmp_path):
    p, = choose_rows('cpu')
    exp = Experiment(replace(p, recipe=replace(p.recipe, epochs=1)), tmp_path/'real')
    z = exp.train(Network('single', 0, 0))['test']
    assert z.shape == (10_000, 10) and (z.argmax(-1) == exp.data(0).images.y_test).float().mean() > .2
