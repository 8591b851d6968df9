"`ekd_cifar` under torchrun: two workers share the networks; one is killed midway, nothing finished is lost."
import os, signal, subprocess, sys, time
import pytest
from test_cifar import ENV, TINY, command, ledger, units

pytestmark = pytest.mark.usefixtures('one_thread')

FEW, NETWORKS = TINY | dict(preset='cpu-augmented'), 16

WORKER = '''
import os
from pathlib import Path
from ensemble_kd import cifar
here, rank, train = Path(__file__).parent, os.environ['RANK'], cifar.Experiment.train
(here/f'pid{rank}').write_text(str(os.getpid()))
def noted(self, net):
    with open(here/'log', 'a') as f: f.write(f'{rank} {net.name}\\n')
    return train(self, net)
cifar.Experiment.train = noted
cifar.ekd_cifar()
'''

def torchrun(tmp, restarts, **settings):
    (tmp/'worker.py').write_text(WORKER)
    how = ['--standalone', '--nproc-per-node', '2', '--max-restarts', str(restarts), '--monitor-interval', '0.1']
    options = [str(o) for k, v in (FEW | dict(out=tmp/'out') | settings).items() for o in (f'--{k}', v)]
    cmd = [sys.executable, '-m', 'torch.distributed.run', *how, str(tmp/'worker.py'), *options]
    return subprocess.Popen(cmd, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def log(tmp): return [o.split() for o in (tmp/'log').read_text().splitlines()] if (tmp/'log').exists() else []

def test_a_killed_worker_costs_what_it_had_in_hand(tmp_path):
    command(tmp_path/'alone', **FEW)
    p = torchrun(tmp_path, restarts=2)
    try:
        def both_at_work(): return len(units(tmp_path/'out')) >= 4 and len({rank for rank, _ in log(tmp_path)}) == 2
        while p.poll() is None and not both_at_work(): time.sleep(.005)
        os.kill(int((tmp_path/'pid1').read_text()), signal.SIGKILL)
        before = units(tmp_path/'out')
        stdout, stderr = p.communicate(timeout=90)
    finally: p.poll() is None and p.kill()
    assert p.returncode == 0, stderr
    assert before.items() <= units(tmp_path/'out').items()              # nothing finished was trained again, ...
    trained = [name for _, name in log(tmp_path)]
    assert len(set(trained)) == NETWORKS and len(trained) <= NETWORKS+2 # ... only what the two had in hand
    assert f'{NETWORKS} of {NETWORKS} networks' in stdout
    assert ledger(tmp_path/'out') == ledger(tmp_path/'alone')

def test_a_worker_s_error_reaches_all(tmp_path):
    p = torchrun(tmp_path, restarts=0, net='29-2')
    _, stderr = p.communicate(timeout=90)
    assert p.returncode != 0 and 'ekd_cifar: depth must be 6n+4' in stderr
