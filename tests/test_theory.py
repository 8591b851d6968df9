"`ekd_theory` as a user runs it: from the shell, with good and bad input, killed and resumed."
import json, signal, subprocess, sysconfig, time
from pathlib import Path
import pytest

EKD = Path(sysconfig.get_path('scripts'))/'ekd_theory'
VARIES = ('wall_s', 'peak_mem_mib', 'date')

def start(*args, cwd): return subprocess.Popen([EKD, *map(str, args)], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def result(folder):
    "What a run found, without what may differ between two runs of the same thing"
    ledger = json.loads((folder/'theory.json').read_text())
    for part in (ledger['provenance'], *ledger['seeds']):
        for key in VARIES: part.pop(key, None)
    return ledger

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "An uninterrupted quick run, and what it printed"
    out = tmp_path_factory.mktemp('whole')
    p = start('--preset', 'quick', '--out', out, cwd=out.parent); stdout, stderr = p.communicate()
    assert p.returncode == 0, stderr
    return out, stdout

def test_quick_shows_the_order(whole):
    out, stdout = whole
    value = {c['id']: c['value'] for c in result(out)['claims']}
    assert value['train.accuracy'] == 100
    assert max(value['theorem2.ensemble'], value['theorem3.distill'], value['theorem4.self_distill']) < .5*value['theorem1.single']
    assert all(o in stdout for o in (*value, 'verdict', '± ', 'seeds'))
    assert (out/'theory.png').stat().st_size > 10_000

def test_ledger_is_strict_and_whole(whole):
    ledger = json.loads((whole[0]/'theory.json').read_text(), parse_constant=lambda o: pytest.fail(o))
    for c in ledger['claims']: assert {'id','statement','paper','rule','value','ci95','n','unit','verdict'} <= c.keys() and c['n'] == 2
    assert {'seed','config','device','versions','commit','wall_s','peak_mem_mib'} <= ledger['provenance'].keys()
    assert ledger['provenance']['config']['n_test'] >= 20_000

@pytest.mark.parametrize('stage', ['seed0_single.npz', 'seed0_self.npz', 'seed0.json'])
def test_killed_and_resumed_is_identical(whole, tmp_path, stage):
    p = start('--preset', 'quick', '--out', tmp_path, cwd=tmp_path)
    while p.poll() is None and not (tmp_path/stage).exists(): time.sleep(.005)
    p.send_signal(signal.SIGKILL); p.communicate()
    assert p.returncode == -signal.SIGKILL and not (tmp_path/'theory.json').exists()
    p = start('--preset', 'quick', '--out', tmp_path, cwd=tmp_path); _, stderr = p.communicate()
    assert p.returncode == 0, stderr
    assert result(tmp_path) == result(whole[0])

def test_interrupt_says_how_to_go_on(tmp_path):
    p = start('--preset', 'quick', '--out', tmp_path, cwd=tmp_path)
    while p.poll() is None and not (tmp_path/'seed0_single.npz').exists(): time.sleep(.005)
    p.send_signal(signal.SIGINT); _, stderr = p.communicate()
    assert p.returncode == 130 and stderr.strip().splitlines()[-1].endswith('the same command with the same --out resumes')
    assert 'Traceback' not in stderr

@pytest.mark.parametrize('args, says', [
    (('--preset', 'huge'), 'expected one of default, paper, quick'),
    (('--preset', 'quick', '--device', 'tpu'), "unknown device 'tpu'"),
    (('--preset', 'quick', '--out', 'file'), 'cannot write into'),
    (('--preset', 'quick', '--out', 'damaged'), 'is damaged'),
    (('--preset', 'quick', '--out', 'other'), 'other settings'),
    (('--seed', 'one'), 'invalid int value')])
def test_bad_input_is_one_line(tmp_path, args, says):
    (tmp_path/'file').write_text('in the way')
    for name in ('damaged', 'other'): (tmp_path/name).mkdir()
    (tmp_path/'damaged/seed0_single.npz').write_bytes(b'PK not really')
    (tmp_path/'other/run.json').write_text('{"seed": 7}')
    p = start(*args, cwd=tmp_path); stdout, stderr = p.communicate()
    last = stderr.strip().splitlines()[-1]
    assert p.returncode == 2 and says in last and last.startswith('ekd_theory: ') and 'Traceback' not in stderr

def test_help_teaches(tmp_path):
    p = start('--help', cwd=tmp_path); stdout, _ = p.communicate()
    assert p.returncode == 0 and all(o in stdout for o in ('quick', 'default', 'paper', '--out', 'resumes', '20,000'))
