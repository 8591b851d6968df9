"The command `ekd_study` as a process: results, resuming, bad input."
import json, os, subprocess, sys, tempfile
from pathlib import Path
import pytest

pytest.importorskip('sklearn')
RUN = 'import sys; from ensemble_kd.study import ekd_study; sys.argv[0] = "ekd_study"; sys.exit(ekd_study())'
TINY = '--seeds 2 --members 2 --students 1 --steps 20 --train 100 --valid 100 --width 4'.split()

def ekd_study(out, *args, code=RUN):
    "Run the command with tiny settings; later arguments win."
    env = os.environ | dict(OMP_NUM_THREADS='1', MPLBACKEND='Agg')
    with tempfile.TemporaryDirectory() as tmp:
        script = Path(tmp)/'run.py'; script.write_text(code)    # a file: fastcore parses arguments only for a real main module
        cmd = [sys.executable, str(script), *TINY, '--out', str(out), *args]
        return subprocess.run(cmd, env=env, capture_output=True, text=True, timeout=120)

def ledger(out):
    d = json.loads((Path(out)/'study.json').read_text())
    for k in ('wall_s', 'date', 'peak_mem_mib'): d['provenance'].pop(k)
    for r in d['rows']: r.pop('wall_s')
    return d

@pytest.fixture(scope='module')
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp('study')/'a'
    r = ekd_study(out); assert r.returncode == 0, r.stderr
    return out, r

def test_writes_ledger_and_figure(done):
    out, r = done
    d = ledger(out)
    assert [o['seed'] for o in d['rows']] == [0, 1] and d['provenance']['config']['steps'] == 20
    ids = [c['id'] for c in d['claims']]
    assert {'study.ensemble_gain', 'study.kd_gain', 'study.self_kd_gain', 'study.train_average_gain'} <= set(ids)
    for c in d['claims']:
        assert {'id', 'statement', 'paper', 'rule', 'value', 'ci95', 'n', 'unit', 'verdict'} <= set(c)
        assert c['n'] == 2 and c['verdict'] in ('reproduced', 'partly', 'not') and c['id'] in r.stdout
    assert (out/'study.png').read_bytes().startswith(b'\x89PNG')

def test_same_seeds_same_ledger_and_resume(done, tmp_path):
    out, _ = done
    assert ekd_study(tmp_path/'b', '--seeds', '1').returncode == 0       # stopped after one seed, ...
    first = (tmp_path/'b'/'seed_0000.json').stat().st_mtime_ns
    r = ekd_study(tmp_path/'b'); assert r.returncode == 0, r.stderr      # ... resumed for the second
    assert (tmp_path/'b'/'seed_0000.json').stat().st_mtime_ns == first
    assert ledger(tmp_path/'b') == ledger(out)

@pytest.mark.parametrize('args, says', [
    (['--data', 'imagenet'], 'expected digits'), (['--device', 'gpu'], 'expected one of auto, cpu'),
    (['--members', '0'], 'expected counts'), (['--seed', '-1'], 'seed ≥ 0'), (['--train', '1790'], 'leave test samples'),
    (['--students', '3'], 'students ≤ members'), (['--steps', '21'], 'steps was 20, now 21')])
def test_bad_input_is_one_line(done, args, says, tmp_path):
    out = done[0] if '--steps' in args else tmp_path/'new'
    r = ekd_study(out, *args)
    line = r.stderr.strip().splitlines()[-1]
    assert r.returncode == 2 and line.startswith('ekd_study: ') and says in line and 'Traceback' not in r.stderr

def test_out_that_cannot_be_written(tmp_path):
    (tmp_path/'file').write_text('')
    r = ekd_study(tmp_path/'file'/'x')
    assert r.returncode == 2 and r.stderr.startswith('ekd_study: cannot write into') and r.stderr.count('\n') == 1

def test_damaged_seed_file(done, tmp_path):
    out = tmp_path/'c'; assert ekd_study(out, '--seeds', '1').returncode == 0
    (out/'seed_0000.json').write_text('{"seed":')
    r = ekd_study(out, '--seeds', '1')
    assert r.returncode == 2 and 'is damaged' in r.stderr and 'Traceback' not in r.stderr

def test_missing_sklearn_says_what_to_install(tmp_path):
    r = ekd_study(tmp_path/'d', code='import sys; sys.modules["sklearn"] = sys.modules["sklearn.datasets"] = None\n' + RUN)
    assert r.returncode == 2 and 'pip install ensemble_kd[digits]' in r.stderr and r.stderr.count('\n') == 1

def test_help_teaches():
    r = ekd_study('x', '--help')
    assert r.returncode == 0 and 'resumes' in r.stdout and '--seeds' in r.stdout
