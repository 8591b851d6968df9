"`ekd_cifar` under torchrun: two workers share the networks, one is killed midway, nothing finished is lost."
import os, signal, subprocess, sys, time
import pytest
from test_cifar import ENV, TINY, ekd_cifar, ledger, members

RUN = '''
import os, sys
from pathlib import Path
from ensemble_kd import cifar
here, rank, train = Path(__file__).parent, os.environ['RANK'], cifar.Run.train
(here/f'pid{rank}').write_text(str(os.getpid()))
def logged(self, unit, tick=None):
    with open(here/'log', 'a') as f: f.write(f'{rank} {unit.name}\\n')
    train(self, unit, tick)
cifar.Run.train, cifar.PATIENCE = logged, 2.
sys.argv[0] = 'ekd_cifar'
sys.exit(cifar.ekd_cifar())
'''

def torchrun(tmp, out, *args, restarts=2):
    script = tmp/'worker.py'; script.write_text(RUN)
    cmd = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', '--max-restarts', str(restarts), '--monitor-interval', '0.1', str(script)]
    return subprocess.Popen([*cmd, *TINY, '--out', str(out), *args], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def log(tmp): return [o.split() for o in (tmp/'log').read_text().splitlines()] if (tmp/'log').exists() else []

@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    tmp = tmp_path_factory.mktemp('alone'); r = ekd_cifar(tmp, tmp/'a'); assert r.returncode == 0, r.stderr
    return ledger(tmp/'a')

def test_killed_worker(undisturbed, tmp_path):
    out = tmp_path/'out'; p = torchrun(tmp_path, out)
    try:
        end = time.monotonic() + 60
        while len(members(out)) < 8: assert p.poll() is None and time.monotonic() < end, p.communicate(); time.sleep(.005)
        os.kill(int((tmp_path/'pid1').read_text()), signal.SIGKILL)
        before = members(out)
        stdout, stderr = p.communicate(timeout=90)
    finally: p.poll() is None and p.kill()
    assert p.returncode == 0, stderr
    assert before.items() <= members(out).items()                  # nothing finished was trained again, ...
    trained = [unit for _, unit in log(tmp_path)]
    assert len(members(out)) == 32 and len(trained) - len(set(trained)) <= 2   # ... only what the two workers had in hand
    assert {rank for rank, _ in log(tmp_path)} == {'0', '1'}       # both worked
    assert stdout.count('of 32 networks') == 1 and ledger(out) == undisturbed

def test_a_worker_s_error_reaches_all(tmp_path):
    p = torchrun(tmp_path, tmp_path/'out', '--net', '28x2', '--members', '1', restarts=0)
    _, stderr = p.communicate(timeout=90)
    assert p.returncode != 0 and 'expected depth-width' in stderr
