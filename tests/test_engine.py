"The training engine where a notebook cell would be too slow: compiled, and with many members."
import torch
from ensemble_kd.data import MultiView
from ensemble_kd.model import init_weights
from ensemble_kd.train import GrowthLR, cross_entropy, loss_and_grad, train

dist = MultiView(d=100)
data = dist.sample(80, torch.Generator().manual_seed(0), dtype=torch.float64)
objective = cross_entropy(data.y, 10)

def test_compiled_is_eager():
    for members in (5, 3, 4):                                # members leave: shapes change
        w = init_weights(range(members), 10, 4, 100, .5, dtype=torch.float64)
        for a, b in zip(loss_and_grad(w, data.x, objective, compiled=True), loss_and_grad(w, data.x, objective)):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)

def test_a_member_is_the_same_beside_63_others():
    many = init_weights(range(64), 10, 4, 100, .1, dtype=torch.float64)
    kw = dict(steps=40, lr=GrowthLR(.2, 4., 100.))
    together, alone = train(many, data.x, data.y, **kw), train(many[17:18], data.x, data.y, **kw)
    torch.testing.assert_close(together.weight[17:18], alone.weight, rtol=1e-8, atol=1e-10)
