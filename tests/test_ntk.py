"Tangent kernels where a notebook cell would not do: peak memory, interrupts, the progress bar, more networks, a GPU."
import math, signal, subprocess, sys, time
import pytest, torch
from torch import nn
from ensemble_kd.ntk import _chosen, _schedule, _trusted, check_linearizable, empirical_ntk, kernel_descent, kernel_matrix, linearize, ntk_cost, patch_ntk, tangent_features
from ensemble_kd.train import cross_entropy

def naive(net, x, y=None): return torch.einsum('ncp,mdp->nmcd', tangent_features(net, x), tangent_features(net, x if y is None else y))
def conv_net(width=8, side=10, k=5): return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(width*(side-4)**2, k))

class Residual(nn.Module):
    "BatchNorm in eval mode, a stride, outputs changed in place, a grouped convolution, an unused layer."
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding='same', padding_mode='reflect', dilation=2), nn.Conv2d(8, 8, 3, groups=4)
        self.norm, self.out, self.unused = nn.BatchNorm2d(8), nn.Linear(8, 4), nn.Linear(2, 2)
        self.norm.running_mean.normal_(generator=torch.Generator().manual_seed(0)); self.norm.running_var.fill_(2.)
    def forward(self, x):
        h = self.a(x)
        h = self.b(self.norm(h).relu()).add_(h)
        return self.out(self.c(h.relu_()).mean((2,3)))

class Tokens(nn.Module):
    "Linear layers applied to every token, tied weights, attention."
    def __init__(self):
        super().__init__()
        self.embed, self.one, self.mix, self.out = nn.Linear(5, 6), nn.Linear(6, 6), nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 3, bias=False)
        self.two = nn.Linear(6, 6); self.two.weight = self.one.weight
    def forward(self, x):
        h = self.two(self.one(self.embed(x)).tanh())
        return self.out(h + self.mix(h, h, h, need_weights=False)[0]).mean(1)

class Flattened(nn.Module):
    "Samples and places in one dimension: samples first (right) or places first."
    def __init__(self, first): super().__init__(); self.first, self.inner, self.out = first, nn.Linear(4, 6), nn.Linear(6, 2)
    def forward(self, x):
        n, T, _ = x.shape
        if self.first=='samples': return self.out(self.inner(x.flatten(0,1)).tanh().view(n, T, -1).sum(1))
        return self.out(self.inner(x.transpose(0,1).flatten(0,1)).tanh().view(T, n, -1).sum(0))

@pytest.mark.parametrize('net, shape', [(Residual().eval(), (6,3,8,8)), (Tokens(), (6,7,5)), (Flattened('samples'), (6,3,4)), (Flattened('places'), (6,3,4)), (nn.Sequential(nn.Conv2d(3,4,3,bias=False), nn.Flatten(), nn.Linear(4,3)), (6,3,3,3))])
@pytest.mark.parametrize('kind', ['full', 'trace', 'class'])
def test_networks_with_all_sorts_of_layers(net, shape, kind):
    net, x = net.double(), torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    full = naive(net, x, x[:4]+1)
    right = dict(full=full, trace=full.diagonal(dim1=2, dim2=3).mean(-1)).get(kind, full.diagonal(dim1=2, dim2=3).permute(2,0,1))
    for method in ('layer', 'vector', 'jacobian'):
        got = empirical_ntk(net, x, x[:4]+1, kind, method)
        assert ((got-right).norm()/right.norm()) < 1e-9, method

def test_attention_can_be_linearised():
    net, x = Tokens().double(), torch.randn(3, 7, 5, dtype=torch.float64)
    lin = linearize(net); torch.testing.assert_close(lin(x), net(x))
    lin(x).square().sum().backward()
    right = torch.autograd.grad(net(x).square().sum(), [dict(net.named_parameters())[n] for n in lin.names])
    for d, g in zip(lin.delta, right): torch.testing.assert_close(d.grad, g, rtol=1e-9, atol=1e-12)

def test_only_layers_that_are_what_they_seem_are_trusted():
    names = lambda net, shape: {l.names[0] for l in _trusted(net.double(), _chosen(net), torch.randn(shape, dtype=torch.float64))}
    assert names(Residual().eval(), (2,3,8,8)) == {'a.weight', 'b.weight', 'out.weight'}
    tokens = names(Tokens(), (2,7,5))
    assert tokens >= {'embed.weight', 'out.weight'} and 'one.weight' not in tokens
    assert 'inner.weight' in names(Flattened('samples'), (2,3,4)) and 'inner.weight' not in names(Flattened('places'), (2,3,4))

def test_a_symmetric_kernel_costs_half():
    net, x = conv_net(), torch.randn(200, 3, 10, 10)
    half, whole = (ntk_cost(net, *o, kind='trace')['jacobian'] for o in ((x,), (x, x)))
    assert .45 < half/whole < .6

def test_random_numbers_and_modes_stay_as_they_are():
    net = Residual().eval(); state = torch.random.get_rng_state(); before = {k: v.clone() for k, v in net.state_dict().items()}
    empirical_ntk(net, torch.ones(3, 3, 8, 8)); linearize(net)(torch.ones(3, 3, 8, 8))
    assert torch.equal(state, torch.random.get_rng_state()) and not net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()) and not any(m._forward_hooks for m in net.modules())
    assert not linearize(net).train()._net[0].training                     # train mode of the linear model leaves BatchNorm alone

PEAK = '''
import resource, sys, torch
from torch import nn
from ensemble_kd.ntk import empirical_ntk
n, mib, kind = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32*144, 10))
x, peak = torch.randn(n, 3, 16, 16), lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform=='darwin' else 2**10)
empirical_ntk(net, x[:4], kind=kind, max_mib=64)                           # libraries load and take what they need
before = peak()
K = empirical_ntk(net, x, kind=kind, max_mib=mib)
print(peak()-before, K.numel()*4/2**20)
'''

@pytest.mark.parametrize('n, mib, kind', [(300, 96, 'trace'), (300, 384, 'trace'), (48, 96, 'full')])
def test_peak_memory_stays_within_the_bound(n, mib, kind, tmp_path, run, root):
    script = tmp_path/'peak.py'; script.write_text(PEAK)
    rise, result = map(float, run(sys.executable, script, n, mib, kind, PYTHONPATH=str(root)).split())
    assert rise-result < mib

def test_progress_and_interrupt(capsys, monkeypatch):
    net, x = conv_net(), torch.randn(12, 3, 10, 10)
    empirical_ntk(net, x, kind='trace', progress='kernel')
    assert 'kernel' in capsys.readouterr().err
    hooks = lambda: sum(len(m._forward_hooks) for m in net.modules())
    calls = []
    def stop(*a): calls.append(a); raise KeyboardInterrupt
    monkeypatch.setattr('ensemble_kd.ntk._product', stop)
    tf32 = torch.backends.cudnn.allow_tf32
    with pytest.raises(KeyboardInterrupt): empirical_ntk(net, x)
    assert calls and not hooks() and torch.backends.cudnn.allow_tf32==tf32
    monkeypatch.undo()
    assert torch.isfinite(empirical_ntk(net, x)).all()

LONG = '''
import torch
from torch import nn
from ensemble_kd.ntk import empirical_ntk
net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32*196, 10))
print('ready', flush=True)
try: empirical_ntk(net, torch.randn(3000, 3, 16, 16), method='vector', progress='kernel')
except KeyboardInterrupt: print('stopped', flush=True)
'''

@pytest.mark.skipif(sys.platform=='win32', reason='signals')
def test_ctrl_c(tmp_path, root):
    script = tmp_path/'long.py'; script.write_text(LONG)
    p = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path, env={'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1', 'PATH': ''})
    try:
        assert p.stdout.readline()=='ready\n'
        time.sleep(1.); p.send_signal(signal.SIGINT)
        assert p.communicate(timeout=30)[0]=='stopped\n'
    finally: p.kill()

@pytest.mark.parametrize('bad, message', [(dict(x=torch.full((2,3,10,10), math.nan)), 'NaN'), (dict(x=torch.ones(0,3,10,10)), 'at least one'), (dict(max_mib=.001), 'max_mib=0.001 is too little'), (dict(kind='all'), 'kind is one of')])
def test_bad_input_says_what_to_do(bad, message):
    with pytest.raises(ValueError, match=message): empirical_ntk(conv_net(), **(dict(x1=bad.pop('x', torch.ones(2,3,10,10))) | bad))

def test_train_mode_is_refused():
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(.5), nn.Linear(4, 2))
    for f in (lambda: linearize(net), lambda: empirical_ntk(net, torch.ones(2,3)), lambda: tangent_features(net, torch.ones(2,3))):
        with pytest.raises(ValueError, match='net.eval'): f()
    check_linearizable(net.eval(), torch.ones(2,3))

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_on_a_gpu():
    net, x = conv_net(), torch.randn(20, 3, 10, 10)
    right = naive(net.double(), x.double()); net = net.float().cuda()
    for method in ('layer', 'vector', 'jacobian'):
        got = empirical_ntk(net, x.cuda(), method=method)
        assert got.is_cuda and (got.cpu().double()-right).norm()/right.norm() < 1e-4
    with pytest.raises(ValueError, match='move one'): empirical_ntk(net, x)
    y = torch.arange(20, device='cuda')%5
    fit = kernel_descent(got[None], None, net(x.cuda()).detach()[None], None, cross_entropy(y, 5), 20)
    assert fit.F.is_cuda and fit.history['loss'][-1] < fit.history['loss'][0]

def test_members_of_a_patch_network_are_independent():
    w, x = torch.randn(3, 4, 2, 12, generator=torch.Generator().manual_seed(0)).double(), torch.randn(7, 5, 12, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(patch_ntk(w, x)[1:2], patch_ntk(w[1:2], x), rtol=1e-12, atol=1e-12)
    assert all(torch.linalg.eigvalsh(k).min() > -1e-9 for k in patch_ntk(w, x).flatten(0,1))

def test_schedule_follows_the_memory():
    from ensemble_kd.ntk import _choose, _make_plan
    net, x = conv_net(32, 16, 10), torch.randn(2, 3, 16, 16)
    plan = _make_plan(net, x, None); _choose(plan, 'trace', 4000, 8_000_000)
    small, large = _schedule(plan, 'trace', 4000, 4, 64), _schedule(plan, 'trace', 4000, 4, 4096)
    assert small[0]==1 and small[1]<4000 and large[0]==10 and large[1]==4000
    assert kernel_matrix(torch.zeros(2,3,4,4)).shape==(8,12)
