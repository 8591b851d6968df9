"What holds for any shape, temperature and weight: averages, lessons, what is kept of a teacher."
import pytest, torch
from torch import nn
from ensemble_kd import members, teachers
from ensemble_kd.distill import decoupled_kd_loss, kd_loss, kd_loss_of_many
from ensemble_kd.members import Ensemble
from ensemble_kd.resnet import seeded

pytest.importorskip('hypothesis')
from hypothesis import given, settings, strategies as st

pytestmark = pytest.mark.usefixtures('one_thread')
few = settings(max_examples=30, deadline=None)
shapes = dict(n=st.integers(1, 5), k=st.integers(2, 7), L=st.integers(1, 4), T=st.floats(.5, 20), seed=st.integers(0, 99))

def outputs(net, *x):
    with torch.no_grad(): return net(*x)

def linears(L, k, d=3): return [seeded(lambda: nn.Linear(d, k), i) for i in range(L)]

@few
@given(L=st.integers(1, 5), n=st.integers(1, 6), k=st.integers(2, 7), seed=st.integers(0, 99),
       half=st.booleans(), kind=st.sampled_from(members.OUTPUTS))
def test_equal_weights_are_no_weights(L, n, k, seed, half, kind):
    torch.manual_seed(seed)
    nets = linears(L, k)
    if half: nets[0].bfloat16()
    x = torch.randn(n, 3)
    a, b = Ensemble(nets, kind), Ensemble(nets, kind, [2.]*L)
    if half:                                                      # a member of its own precision
        nets[0].register_forward_pre_hook(lambda net, x: tuple(o.bfloat16() for o in x))
    torch.testing.assert_close(outputs(a, x), outputs(b, x))
    each = outputs(a.members, x)
    assert each.shape == (L, n, k) and each.dtype == torch.float32
    if kind == 'probabilities': torch.testing.assert_close(outputs(a, x).exp().sum(-1), torch.ones(n))
    else: torch.testing.assert_close(outputs(a, x), each.mean(0))

@few
@given(w=st.lists(st.floats(0, 1e3), min_size=1, max_size=5).filter(lambda o: sum(o) > 1e-3), seed=st.integers(0, 99))
def test_weights_are_shares(w, seed):
    torch.manual_seed(seed)
    x, nets = torch.randn(4, 3), linears(len(w), 5)
    each, share = outputs(Ensemble(nets).members, x).double(), torch.tensor(w).double()/sum(w)
    got = outputs(Ensemble(nets, weights=w), x).double()
    torch.testing.assert_close(got, (share[:,None,None]*each).sum(0), atol=1e-5, rtol=1e-5)
    got = outputs(Ensemble(nets, 'probabilities', w), x).double().exp()
    torch.testing.assert_close(got, (share[:,None,None]*each.softmax(-1)).sum(0), atol=1e-5, rtol=1e-5)

@few
@given(k=st.integers(2, 9), seed=st.integers(0, 99), data=st.data())
def test_top_classes_and_the_rest_are_a_distribution(k, seed, data):
    top, size = data.draw(st.integers(1, k-1)), data.draw(st.sampled_from([.1, 3., 60.]))
    z = size*torch.randn(7, k, generator=torch.Generator().manual_seed(seed))
    p, got = z.softmax(-1), teachers._unpacked(teachers._packed(z, top, torch.float32)).softmax(-1)
    torch.testing.assert_close(got.sort(-1).values[:,-top:], p.sort(-1).values[:,-top:], atol=1e-4, rtol=1e-4)
    assert (got.argmax(-1) == p.argmax(-1)).all() and got.isfinite().all()

@few
@given(**shapes, weight=st.floats(0, 1))
def test_the_mean_of_losses_teaches_the_mean_of_probabilities(n, k, L, T, seed, weight):
    torch.manual_seed(seed)
    z, G, y = torch.randn(n, k).double().requires_grad_(), 3*torch.randn(L, n, k).double(), torch.randint(k, (n,))
    loss = {o: kd_loss_of_many(z, y, G, T, weight, o).sum() for o in ('probabilities', 'kl', 'logits')}
    slopes = {o: torch.autograd.grad(v, z)[0] for o, v in loss.items()}
    torch.testing.assert_close(slopes['kl'], slopes['probabilities'], atol=1e-9, rtol=1e-7)
    assert loss['kl'] >= loss['probabilities'] - 1e-9             # by what the teachers differ
    if L == 1: torch.testing.assert_close(slopes['kl'], slopes['logits'], atol=1e-9, rtol=1e-7)

@few
@given(**shapes, alpha=st.floats(0, 3), beta=st.floats(0, 9))
def test_decoupled_parts_make_the_whole(n, k, L, T, seed, alpha, beta):
    torch.manual_seed(seed)
    z, G, y = 3*torch.randn(L, n, k).double(), 3*torch.randn(n, k).double(), torch.randint(k, (n,))
    q = (G/T).softmax(-1).gather(-1, y[:,None]).squeeze(-1)
    whole = decoupled_kd_loss(z, y, G, T, .7, 1., 1-q)
    torch.testing.assert_close(whole, kd_loss(z, y, G, T, .7), atol=1e-8, rtol=1e-7)
    part = {o: decoupled_kd_loss(z, y, G, T, 1., *o) for o in ((1., 0.), (0., 1.), (alpha, beta))}
    torch.testing.assert_close(part[alpha, beta], alpha*part[1., 0.] + beta*part[0., 1.], atol=1e-8, rtol=1e-7)
    assert all((o > -1e-9).all() for o in part.values())          # divergences
