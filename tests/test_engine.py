"""The engine where a notebook cell would be too slow, and today's numbers.

`frozen.json` holds what a small run of each kind gives: a change of seeds or of arithmetic shows here, meant or not.
If it was meant, `python tests/test_engine.py` writes today's numbers anew."""
import json
from pathlib import Path
import pytest, torch
from torch import nn
from ensemble_kd.core import generator
from ensemble_kd.data import MultiView
from ensemble_kd.model import init_weights
from ensemble_kd.studies import study_repeat
from ensemble_kd.theory import run_seed
from ensemble_kd.train import GrowthLR, cross_entropy, loss_and_grad, train
from ensemble_kd.trainer import Recipe
from test_theory import TINY

pytestmark = pytest.mark.usefixtures('one_thread')

FROZEN = Path(__file__).with_name('frozen.json')

def sample(dtype, n=80): return MultiView(d=100).sample(n, generator('engine'), dtype=dtype)
def weights(members, dtype, sigma0=.1): return init_weights(range(members), 10, 4, 100, sigma0, dtype=dtype)

@pytest.mark.parametrize('members', [5, 3])                    # members leave: shapes change
def test_compiled_is_eager(members):
    data, w = sample(torch.float64), weights(members, torch.float64, .5)
    objective = cross_entropy(data.y, 10)
    for a, b in zip(loss_and_grad(w, data.x, objective, compiled=True), loss_and_grad(w, data.x, objective)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)

def test_a_member_is_the_same_beside_63_others():
    data, many = sample(torch.float64), weights(64, torch.float64)
    kw = dict(steps=40, lr=GrowthLR(.2, 4., 100.))
    together, alone = train(many, data.x, data.y, **kw), train(many[17:18], data.x, data.y, **kw)
    torch.testing.assert_close(together.weight[17:18], alone.weight, rtol=1e-8, atol=1e-10)

# --- today's numbers

def of_train():
    "Losses of three members at every fifth step"
    data = sample(torch.float32)
    return train(weights(3, torch.float32), data.x, data.y, steps=20, log_every=5).history['loss'].tolist()

def of_theory():
    "Mean errors of the first seed's networks, on 1,000 samples of each kind"
    arms = run_seed(TINY, 0)['arms']
    return {name: [sum(o[kind])/len(o[kind]) for kind in ('single_view', 'multi_view')] for name, o in arms.items()}

def of_study():
    "Test errors of one repeat with small networks on multi-view data, in %"
    data = MultiView(k=4, d=20, P=8, s=1., mu=.3, sigma_p=.3).sample(700, generator('study'))
    def mlp(): return nn.Sequential(nn.Linear(160, 16), nn.ReLU(), nn.Linear(16, 4))
    recipe = Recipe(epochs=6, batch=20, optimizer='adam', lr=.01, weight_decay=0.)
    return study_repeat(mlp, data.x.flatten(1), data.y, 0, (100, 100), members=4, students=2, recipe=recipe)['error']

MEASURED = dict(train=(of_train, 1e-4), theory=(of_theory, .01), study=(of_study, 1.))    # and how far off is too far

@pytest.mark.parametrize('name', MEASURED)
def test_today_s_numbers(name):
    measure, tolerance = MEASURED[name]
    now, frozen = measure(), json.loads(FROZEN.read_text())[name]
    if isinstance(now, list): now, frozen = dict(enumerate(now)), dict(enumerate(frozen))
    assert now.keys() == frozen.keys()
    for k in frozen: assert now[k] == pytest.approx(frozen[k], abs=tolerance), f'{name} {k}: see the head of this file'

if __name__ == '__main__':
    found = {name: measure() for name, (measure, _) in MEASURED.items()}
    FROZEN.write_text(json.dumps(found, indent=1) + '\n')
