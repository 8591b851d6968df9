"Tangent kernels where a notebook cell would not do: more networks, peak memory, interrupts, the progress bar, a GPU."
import math, os, signal, subprocess, sys, time
import pytest, torch
from torch import nn
from ensemble_kd import ntk
from ensemble_kd.linear import kernel_descent, linear_patches
from ensemble_kd.model import init_weights
from ensemble_kd.ntk import check_linearizable, empirical_ntk, linearize, ntk_cost, patch_ntk, tangent_features
from ensemble_kd.train import cross_entropy

def naive(net, x, y=None):
    "The kernel from all features"
    a, b = tangent_features(net, x), tangent_features(net, x if y is None else y)
    return torch.einsum('ncp,mdp->nmcd', a, b)

def conv_net(width=8, side=10, k=5):
    layers = nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3), nn.ReLU()
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width*(side-4)**2, k))

def normal(*shape, seed=1):
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=gen)

class Residual(nn.Module):
    "BatchNorm in eval mode, a stride, outputs changed in place, a grouped convolution, an unused layer."
    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=4)
        self.b = nn.Conv2d(8, 8, 3, padding='same', padding_mode='reflect', dilation=2)
        self.norm, self.out, self.unused = nn.BatchNorm2d(8), nn.Linear(8, 4), nn.Linear(2, 2)
        self.norm.running_mean.copy_(normal(8))
        self.norm.running_var.fill_(2.)
    def forward(self, x):
        h = self.a(x)
        h = self.b(self.norm(h).relu()).add_(h)
        return self.out(self.c(h.relu_()).mean((2, 3)))

class Tokens(nn.Module):
    "Linear layers applied to every token, tied weights, attention."
    def __init__(self):
        super().__init__()
        self.embed, self.one, self.two = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.mix, self.out = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 3, bias=False)
        self.two.weight = self.one.weight
    def forward(self, x):
        h = self.two(self.one(self.embed(x)).tanh())
        return self.out(h + self.mix(h, h, h, need_weights=False)[0]).mean(1)

class Flattened(nn.Module):
    "Samples and places in one dimension: samples first (right) or places first."
    def __init__(self, first):
        super().__init__()
        self.first, self.inner, self.out = first, nn.Linear(4, 6), nn.Linear(6, 2)
    def forward(self, x):
        n, T, _ = x.shape
        if self.first == 'samples': return self.out(self.inner(x.flatten(0, 1)).tanh().view(n, T, -1).sum(1))
        return self.out(self.inner(x.transpose(0, 1).flatten(0, 1)).tanh().view(T, n, -1).sum(0))

def whole_image(): return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(), nn.Linear(4, 3))

NETS = [(lambda: Residual().eval(), (6, 3, 8, 8)), (Tokens, (6, 7, 5)), (lambda: Flattened('samples'), (6, 3, 4)),
        (lambda: Flattened('places'), (6, 3, 4)), (whole_image, (6, 3, 3, 3))]

@pytest.mark.parametrize('make, shape', NETS)
@pytest.mark.parametrize('kind', ['full', 'trace', 'class'])
def test_networks_with_all_sorts_of_layers(make, shape, kind):
    net, x = make().double(), normal(*shape)
    full = naive(net, x, x[:4]+1)
    each = full.diagonal(dim1=2, dim2=3)
    right = dict(full=full, trace=each.mean(-1)).get(kind, each.permute(2, 0, 1))
    for method in ntk.METHODS:
        got = empirical_ntk(net, x, x[:4]+1, kind, method)
        assert (got-right).norm()/right.norm() < 1e-9, method

def test_attention_can_be_linearised():
    net, x = Tokens().double(), normal(3, 7, 5)
    lin = linearize(net)
    torch.testing.assert_close(lin(x), net(x))
    lin(x).square().sum().backward()
    right = torch.autograd.grad(net(x).square().sum(), [dict(net.named_parameters())[n] for n in lin.names])
    for d, g in zip(lin.delta, right): torch.testing.assert_close(d.grad, g, rtol=1e-9, atol=1e-12)

def test_only_layers_that_are_what_they_seem_are_trusted():
    "A layer's shortcut is taken only where it gives autograd's features"
    def names(net, *shape):
        layers = ntk._trusted(net.double(), ntk._chosen(net), normal(*shape))
        return {l.weight for l in layers}
    assert names(Residual().eval(), 2, 3, 8, 8) == {'a.weight', 'b.weight', 'c.weight', 'out.weight'}
    tokens = names(Tokens(), 2, 7, 5)
    assert tokens >= {'embed.weight', 'out.weight'} and 'one.weight' not in tokens
    assert 'inner.weight' in names(Flattened('samples'), 2, 3, 4)
    assert 'inner.weight' not in names(Flattened('places'), 2, 3, 4)

def test_a_symmetric_kernel_costs_half():
    net, x = conv_net(), torch.randn(200, 3, 10, 10)
    half, whole = (ntk_cost(net, *o, kind='trace')['jacobian'] for o in ((x,), (x, x)))
    assert .45 < half/whole < .6

def test_random_numbers_modes_and_buffers_stay_as_they_are():
    net, x = Residual().eval(), torch.ones(3, 3, 8, 8)
    state, before = torch.random.get_rng_state(), {k: v.clone() for k, v in net.state_dict().items()}
    empirical_ntk(net, x)
    linearize(net)(x)
    assert torch.equal(state, torch.random.get_rng_state()) and not net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not any(m._forward_hooks for m in net.modules())
    linearize(net).train()
    assert not net.training                        # train mode of the linear model leaves BatchNorm alone

PEAK = '''
import resource, sys, torch
from torch import nn
from ensemble_kd.ntk import empirical_ntk
n, mib, kind = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
layers = nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32*144, 10)
net, x = nn.Sequential(*layers), torch.randn(n, 3, 16, 16)
mebibyte = 2**20 if sys.platform == 'darwin' else 2**10
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / mebibyte
empirical_ntk(net, x[:4], kind=kind, max_mib=64)             # libraries load and take what they need
before = peak()
K = empirical_ntk(net, x, kind=kind, max_mib=mib)
print(peak()-before, K.numel()*4/2**20)
'''

@pytest.mark.skipif(os.name != 'posix', reason='needs getrusage')
@pytest.mark.parametrize('n, mib, kind', [(300, 96, 'trace'), pytest.param(48, 96, 'full', marks=pytest.mark.slow)])
def test_peak_memory_stays_within_the_bound(n, mib, kind, tmp_path, run, root):
    script = tmp_path/'peak.py'
    script.write_text(PEAK)
    rise, result = map(float, run(sys.executable, script, n, mib, kind, PYTHONPATH=str(root)).split())
    assert rise-result < mib

def test_an_error_in_the_middle_leaves_no_trace(capsys, monkeypatch):
    net, x = conv_net(), torch.randn(12, 3, 10, 10)
    empirical_ntk(net, x, kind='trace', progress='kernel')
    assert 'kernel' in capsys.readouterr().err
    def stop(*args): raise KeyboardInterrupt
    monkeypatch.setattr(ntk, '_product', stop)
    tf32 = torch.backends.cudnn.allow_tf32
    with pytest.raises(KeyboardInterrupt): empirical_ntk(net, x)
    assert not any(m._forward_hooks for m in net.modules()) and torch.backends.cudnn.allow_tf32 == tf32
    monkeypatch.undo()
    assert torch.isfinite(empirical_ntk(net, x)).all()

LONG = '''
import torch
from torch import nn
from ensemble_kd.ntk import empirical_ntk
net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32*196, 10))
print('ready', flush=True)
try: empirical_ntk(net, torch.randn(800, 3, 16, 16), method='vector', progress='kernel')
except KeyboardInterrupt: print('stopped', flush=True)
'''

@pytest.mark.skipif(os.name != 'posix', reason='signals')
def test_ctrl_c(root):
    env = dict(PYTHONPATH=str(root), OMP_NUM_THREADS='1', PATH='')
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    p = subprocess.Popen([sys.executable, '-c', LONG], env=env, **pipes)
    try:
        assert p.stdout.readline() == 'ready\n'
        time.sleep(.5)
        p.send_signal(signal.SIGINT)
        assert p.communicate(timeout=30)[0] == 'stopped\n'
    finally: p.kill()

def test_train_mode_is_refused():
    net, x = nn.Sequential(nn.Linear(3, 4), nn.Dropout(.5), nn.Linear(4, 2)), torch.ones(2, 3)
    for f in (linearize, lambda net: empirical_ntk(net, x), lambda net: tangent_features(net, x)):
        with pytest.raises(ValueError, match='net.eval'): f(net)
    check_linearizable(net.eval(), x)

def test_members_of_a_patch_network_are_independent():
    w, x = normal(3, 4, 2, 12), normal(7, 5, 12)
    K = patch_ntk(w, x)
    torch.testing.assert_close(K[1:2], patch_ntk(w[1:2], x), rtol=1e-12, atol=1e-12)
    assert torch.linalg.eigvalsh(K.flatten(0, 1)).min() > -1e-9

def test_a_linearised_member_is_the_same_beside_others():
    w, x, y = init_weights(range(3), 4, 2, 12, .5, dtype=torch.float64), normal(8, 5, 12), torch.arange(8) % 4
    objective, tests = cross_entropy(y, 4), dict(test=normal(5, 5, 12, seed=2))
    fits = [linear_patches(o, x).fit(objective, tests, steps=50) for o in (w, w[1:2])]
    torch.testing.assert_close(fits[0]['test'][1:2], fits[1]['test'], rtol=1e-9, atol=1e-12)

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_on_a_gpu():
    net, x = conv_net(), torch.randn(20, 3, 10, 10)
    right = naive(net.double(), x.double())
    net = net.float().cuda()
    for method in ntk.METHODS:
        got = empirical_ntk(net, x.cuda(), method=method)
        assert got.is_cuda and (got.cpu().double()-right).norm()/right.norm() < 1e-4
    with pytest.raises(ValueError, match='move one'): empirical_ntk(net, x)
    y = torch.arange(20, device='cuda') % 5
    fit = kernel_descent(got[None], net(x.cuda()).detach()[None], cross_entropy(y, 5), 20)
    assert fit.F.is_cuda and fit.history['loss'][-1] < fit.history['loss'][0]
