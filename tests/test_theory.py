"`ekd_theory` as a user runs it: the order of the theorems, killed and resumed, damaged, shared by two processes."
import json, os, shutil, signal, subprocess, sys, time
from pathlib import Path
from unittest import mock
import pytest
from conftest import comparable
from ensemble_kd import runs, theory
from ensemble_kd.data import MultiView
from ensemble_kd.runs import load_arrays
from ensemble_kd.theory import Arm, Preset

DATA = MultiView(k=5, P=8, d=64, s=1., mu=.005, other=(.4, .4), rho=.005, Gamma=.4, gamma=0., sigma_p=.15)
ARMS = (Arm('labels', 'labels', networks=2, steps=300), Arm('kd', networks=2, steps=300),
        Arm('self_kd', 'other', start='single', networks=2, scale=140., steps=300))
TINY = Preset(DATA, 300, ARMS, m=4, members=8, max_steps=600, repeats=2, n_test=2000, n_probe=20, compiled=False)

pytestmark = pytest.mark.usefixtures('one_thread')

def command(out, **settings):
    "`ekd_theory --preset tiny --out OUT`, in this process"
    with mock.patch.dict(theory.PRESETS, tiny=TINY):
        theory.ekd_theory(preset='tiny', out=str(out), device='cpu', **settings)

def child(out):
    "The same, saving its state fifty times a second, and noting which seeds it computes"
    def noted(preset, seed, *args):
        with open(f'{out}.log', 'a') as f: f.write(f'{seed}\n')
        return run_seed(preset, seed, *args)
    run_seed, theory.run_seed = theory.run_seed, noted
    runs.Checkpoint.due = lambda self: time.monotonic() - self.saved_at > .02
    command(out)

def start(out):
    "The child in a process of its own"
    env = os.environ | dict(OMP_NUM_THREADS='1', MPLBACKEND='Agg')
    env['PYTHONPATH'] = os.pathsep.join([str(Path(__file__).parent), env.get('PYTHONPATH', '')])
    cmd = [sys.executable, '-c', f'import test_theory; test_theory.child({str(out)!r})']
    return subprocess.Popen(cmd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

def stop_at(out, file, sig):
    "Start the child, send a signal as soon as it has written a file; its exit status and standard error"
    p = start(out)
    while p.poll() is None and not (out/file).exists(): time.sleep(.002)
    p.send_signal(sig)
    return p.communicate()[1], p.returncode

def found(out): return comparable(out/'theory.json')

def units(out): return {p.name: p.stat().st_mtime_ns for p in (out/'units').iterdir()}

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "The folder of an uninterrupted run"
    out = tmp_path_factory.mktemp('theory')/'whole'
    command(out)
    return out

@pytest.fixture
def copy(whole, tmp_path): return Path(shutil.copytree(whole, tmp_path/'copy'))

def test_the_order_of_the_theorems(whole):
    def error(row, arm): return sum(row['arms'][arm]['single_view'])/len(row['arms'][arm]['single_view'])
    for row in found(whole)['seeds']:
        names = 'single', 'labels', 'ensemble', 'kd', 'self_kd'
        single, labels, ensemble, kd, self_kd = (error(row, o) for o in names)
        assert .3 < single < .6                    # Theorem 1: half of the single-view data
        assert max(ensemble, kd) < .1*single       # Theorems 2 and 3
        assert ensemble < self_kd < .8*single      # Theorem 4: a quarter
        assert labels > .7*single                  # it is the teacher's knowledge that helps
        assert min(row['arms']['single']['train_accuracy']) == 1

def test_ledger_is_strict_and_whole_and_the_table_has_all_of_it(whole, capsys):
    command(whole)                                 # nothing left to do but to show it
    ledger, out = json.loads((whole/'theory.json').read_text(), parse_constant=pytest.fail), capsys.readouterr().out
    for c in ledger['claims']:
        assert {'id', 'statement', 'paper', 'rule', 'value', 'ci95', 'n', 'unit', 'verdict'} <= c.keys()
        assert c['n'] == 2 and c['id'] in out
    assert all(arm in out for arm in ledger['seeds'][0]['arms']) and 'verdict' in out
    assert {'seed', 'config', 'device', 'versions', 'commit', 'wall_s', 'peak_mem_mib'} <= ledger['provenance'].keys()
    assert ledger['provenance']['config']['n_test'] == TINY.n_test
    assert (whole/'theory.png').read_bytes().startswith(b'\x89PNG')

def test_stopped_twice_and_then_shared_by_two_processes_is_identical(whole, tmp_path):
    out, log = tmp_path/'stopped', tmp_path/'stopped.log'
    half = 'unfinished/seed0.single.safetensors'
    assert stop_at(out, half, signal.SIGKILL)[1] == -signal.SIGKILL          # in the middle of the singles, ...
    state = load_arrays(out/half)[1]
    assert 0 < state['step'] and not state['done'].all()
    stderr, status = stop_at(out, 'unfinished/seed0.arms0.safetensors', signal.SIGINT)        # ... and by Ctrl-C
    assert status == 130 and 'Traceback' not in stderr
    assert stderr.strip().splitlines()[-1].endswith('the same command with the same --out resumes')
    assert not (out/'units').exists() and not (out/'theory.json').exists()
    other = start(out)
    while other.poll() is None and len(log.read_text().split()) < 3: time.sleep(.01)
    command(out)                                                             # it has begun again with the first seed, ...
    other.communicate()
    assert (other.returncode, log.read_text()) == (0, '0\n'*3)               # ... the second was left to us
    assert found(out) == found(whole)

def test_a_damaged_unit_is_said_and_computed_again(whole, copy, capsys):
    file = copy/'units/seed1.safetensors'
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged)//2] ^= 4
    file.write_bytes(damaged)
    before = units(copy)
    command(copy)
    assert 'seed1.safetensors' in (said := capsys.readouterr().out) and 'is damaged' in said
    assert {k for k, v in units(copy).items() if v != before[k]} == {'seed1.safetensors'}
    assert found(copy) == found(whole)

def test_a_folder_of_another_run_is_refused(copy, capsys):
    before = {p: p.read_bytes() for p in copy.rglob('*') if p.is_file()}
    with pytest.raises(SystemExit) as e: command(copy, seed=7)
    line, = capsys.readouterr().err.strip().splitlines()
    assert e.value.code == 2 and line.startswith('ekd_theory: ') and 'seed was 0, now 7' in line
    assert before == {p: p.read_bytes() for p in copy.rglob('*') if p.is_file()}
