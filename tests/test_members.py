"Ensembles as modules: what they average, what survives on disk, what a card may ask for; teachers on disk; measures."
import copy, math, subprocess, sys, textwrap
from functools import partial
import pytest, torch
from torch import nn
from torch.nn import functional as F
from ensemble_kd import members
from ensemble_kd.ensemble import best_temperature, brier, measures
from ensemble_kd.inputs import TensorData
from ensemble_kd.members import Ensemble, Snapshots
from ensemble_kd.resnet import SmallNet, seeded
from ensemble_kd.runs import read_json, write_json
from ensemble_kd.teachers import SavedOutputs, save_outputs
from ensemble_kd.trainer import Recipe, Trainer, live_teacher

pytestmark = pytest.mark.usefixtures('one_thread')

def outputs(net, *x):
    with torch.no_grad(): return net(*x)

# --- averages

def linears(L, k, d=3): return [seeded(lambda: nn.Linear(d, k), i) for i in range(L)]

def test_an_ensemble_is_a_module():
    net = Ensemble([SmallNet(4, width=4), SmallNet(4, width=4)], weights=[1, 3])
    assert not any(o.training for o in net.modules())
    other = Ensemble([SmallNet(4, width=4), SmallNet(4, width=4)], weights=[1, 1])
    other.load_state_dict(net.state_dict())
    x = torch.randn(3, 3, 16, 16)
    assert torch.equal(outputs(net, x), outputs(other, x))
    assert net.double().members(x.double()).dtype == torch.float64
    net.train()
    net(x.double()).sum().backward()
    assert all(p.grad is not None for p in net.parameters())

def test_teaches_like_the_members_it_is_made_of():
    x = torch.randn(60, 3)
    data, recipe = TensorData(x, torch.arange(60) % 4), Recipe(epochs=2, batch=20)
    trainer = Trainer(lambda: nn.Linear(3, 4), recipe)
    states, nets = [], []
    for s in range(3):
        trainer.fit(data, s)
        states.append(trainer.state())
        nets.append(copy.deepcopy(trainer.nets[0]))
    a, b = (trainer.fit(data, 9, teacher=o) for o in (Ensemble(nets).teach, live_teacher(trainer, states)))
    assert a == pytest.approx(b, rel=1e-6)

# --- on disk

class Tied(nn.Module):
    "Words in, words out, by one and the same weight; attention, an embedding, a buffer."
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(9, 4), nn.Linear(4, 9)
        self.out.weight = self.words.weight
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.register_buffer('scale', torch.rand(()))
    def forward(self, ids):
        h = self.words(ids)
        return self.out(self.attend(h, h, h, need_weights=False)[0].mean(1)*self.scale)

def halved(): return nn.Linear(3, 4).bfloat16()

class Cast(nn.Module):
    def __init__(self): super().__init__(); self.net = halved()
    def forward(self, x): return self.net(x.bfloat16())

KINDS = dict(tied=(Tied, torch.randint(9, (5, 6))), batchnorm=(partial(SmallNet, 4, width=4), torch.randn(5, 3, 16, 16)),
             bfloat16=(Cast, torch.randn(5, 3)), float64=(lambda: nn.Linear(3, 4).double(), torch.randn(5, 3).double()),
             nothing=(partial(nn.Flatten, 1), torch.randn(5, 3)))

@pytest.mark.parametrize('kind', KINDS)
def test_saved_and_loaded_says_the_same(kind, tmp_path):
    make, x = KINDS[kind]
    nets = [seeded(make, i) for i in range(3)]
    if kind == 'batchnorm':
        for o in nets: o(x)                                       # running statistics of their own
    net = Ensemble(nets, 'probabilities', [1, 2, 4])
    net.save(tmp_path, make, about=dict(note='ä'))
    same = Ensemble.load(tmp_path, make)
    assert torch.equal(outputs(net, x), outputs(same, x))
    for a, b in zip(net.state_dict().values(), same.state_dict().values()): assert a.dtype == b.dtype
    if kind == 'tied': assert same[0].out.weight is same[0].words.weight
    before = torch.get_rng_state()
    Ensemble.load(tmp_path, make)
    assert torch.equal(before, torch.get_rng_state())             # loading draws nothing
    files = sorted(o.name for o in tmp_path.iterdir())
    assert files[0] == 'ensemble.json' and all(o.endswith('.safetensors') for o in files[1:])
    assert read_json(tmp_path/'ensemble.json')['about'] == dict(note='ä')

@pytest.mark.parametrize('at', range(5))
def test_a_save_that_fails_leaves_the_old_ensemble(at, tmp_path, monkeypatch):
    make, x = (lambda: nn.Linear(3, 4)), torch.randn(5, 3)
    old, new = Ensemble(linears(2, 4)), Ensemble([seeded(make, 10+i) for i in range(4)])
    old.save(tmp_path)
    count = iter(range(99))
    def failing(write):
        def f(*args):
            if next(count) == at: raise OSError('no space left')
            return write(*args)
        return f
    for name in ('save_arrays', 'write_json'): monkeypatch.setattr(members, name, failing(getattr(members, name)))
    with pytest.raises(OSError, match='no space'): new.save(tmp_path)
    assert torch.equal(outputs(Ensemble.load(tmp_path, make), x), outputs(old, x))
    monkeypatch.undo()
    new.save(tmp_path)
    assert torch.equal(outputs(Ensemble.load(tmp_path, make), x), outputs(new, x))
    assert len([*tmp_path.iterdir()]) == 5                        # nothing of the old one is left

def ask(folder, **spec):
    "Have the card ask for another factory, as somebody might who knows how it is sealed"
    card = read_json(folder/'ensemble.json')
    card['members'][0]['make'] = dict(function='', args=[], kwargs={}) | spec
    write_json(folder/'ensemble.json', card | dict(checksum=members._seal(card)))

REFUSED = [dict(function='os:system', args=['echo']), dict(function='torch.fx.graph_module:reduce_graph_module'),
           dict(function='torch.hub:load', args=['a']), dict(function='torch.jit:load', args=['a']),
           dict(function='colorsys:rgb_to_hsv'), dict(function='builtins:exec', args=['1']), dict(function=':'),
           dict(function='torch.nn.modules.linear:Linear.forward'), dict(function='ensemble_kd.members:OUTPUTS'),
           dict(function='torch.nn.modules.linear:Linear', args=[dict(a=1), 4]), dict(function='numpy:load', args=['a'])]

@pytest.mark.parametrize('spec', REFUSED, ids=lambda o: o['function'])
def test_a_card_cannot_have_anything_called(spec, tmp_path):
    Ensemble(linears(1, 4)).save(tmp_path, partial(nn.Linear, 3, 4))
    assert len(Ensemble.load(tmp_path)) == 1
    before = {*sys.modules}
    ask(tmp_path, **spec)
    with pytest.raises(ValueError, match='which is not imported here, or does not declare'): Ensemble.load(tmp_path)
    assert len(Ensemble.load(tmp_path, partial(nn.Linear, 3, 4))) == 1
    assert 'colorsys' in before or 'colorsys' not in sys.modules  # nothing is imported because a file says so

def test_a_factory_is_found_once_its_module_is_imported(tmp_path):
    (tmp_path/'my_nets.py').write_text(textwrap.dedent('''
        from torch import nn
        class Net(nn.Module):
            def __init__(self, width=5):
                super().__init__()
                self.net = nn.Linear(3, width)
            def forward(self, x): return self.net(x)
        '''))
    script = textwrap.dedent('''
        import sys, torch
        from functools import partial
        from ensemble_kd import Ensemble
        if sys.argv[1] == 'save':
            from my_nets import Net
            Ensemble([Net(7), Net(7)]).save('saved', make=partial(Net, width=7))
        else:
            try: Ensemble.load('saved')
            except ValueError as e: assert 'my_nets:Net, which is not imported here' in str(e), e
            else: raise AssertionError('found without an import')
            import my_nets
            assert Ensemble.load('saved')(torch.zeros(2, 3)).shape == (2, 7)
        ''')
    for what in ('save', 'load'):
        subprocess.run([sys.executable, '-c', script, what], cwd=tmp_path, check=True)

OWN = '''
import sys, torch
from torch import nn
from ensemble_kd import Ensemble
from ensemble_kd.runs import read_json, write_json
from ensemble_kd.members import _seal
def make(): return nn.Linear(3, 4)
def wide(k=9): raise SystemExit('called')
net, x = Ensemble([make(), make()]), torch.randn(2, 3)
net.save('saved', make)
assert torch.equal(Ensemble.load('saved')(x), net(x))
card = read_json('saved/ensemble.json')
for spec in (dict(function='__main__:wide', args=[1], kwargs={}), dict(function='__main__:read_json', args=[], kwargs={})):
    card['members'][0]['make'] = spec
    write_json('saved/ensemble.json', card | dict(checksum=_seal(card)))
    try: Ensemble.load('saved')
    except ValueError as e: assert 'does not declare' in str(e), e
    else: raise AssertionError(spec)
'''

def test_a_script_s_own_factory_needs_no_declaration_but_takes_no_arguments_from_a_file(tmp_path):
    subprocess.run([sys.executable, '-c', OWN], cwd=tmp_path, check=True)

def test_another_network_of_the_same_shape_is_noticed(tmp_path):
    def net(act): return nn.Sequential(nn.Linear(3, 4), act, nn.Linear(4, 2))
    Ensemble(net(nn.ReLU())).save(tmp_path)
    with pytest.warns(UserWarning, match='does not print as it did'): Ensemble.load(tmp_path, lambda: net(nn.Tanh()))

def test_every_kind_of_broken_card_is_a_sentence(tmp_path):
    Ensemble(linears(2, 4)).save(tmp_path)
    card, whole = tmp_path/'ensemble.json', (tmp_path/'ensemble.json').read_bytes().strip()
    for i in range(0, len(whole), 7):
        for broken in (whole[:i], whole[:i] + bytes([whole[i] ^ 1]) + whole[i+1:]):
            card.write_bytes(broken)
            with pytest.raises(ValueError) as e: Ensemble.load(tmp_path, partial(nn.Linear, 3, 4))
            assert '\n' not in str(e.value)

def test_torchvision_networks_are_members(tmp_path):
    models = pytest.importorskip('torchvision.models')
    small = partial(models.squeezenet1_1, weights=None, num_classes=4)
    def own(): return nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(48, 4))
    net, x = Ensemble([small(), own()]), torch.randn(2, 3, 64, 64)
    net.save(tmp_path, [small, own])
    assert torch.equal(outputs(Ensemble.load(tmp_path, [None, own]), x), outputs(net, x))

# --- programs

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(2, 4)
    def forward(self, x, more): return self.a(x) + self.b(more)

X, MORE = torch.randn(5, 3), torch.randn(5, 2)

@pytest.mark.parametrize('example', [(X, MORE), dict(more=MORE, x=X)], ids=['tuple', 'dict'])
def test_onnx(example, tmp_path):
    pytest.importorskip('onnx'), pytest.importorskip('onnxscript')
    runtime = pytest.importorskip('onnxruntime')
    net = Ensemble([Two(), Two()], 'probabilities', [1, 2])
    session = runtime.InferenceSession(net.export(tmp_path/'net.onnx', example))
    tensors = example.values() if isinstance(example, dict) else example
    feed = {o.name: torch.cat([t, t]).numpy() for o, t in zip(session.get_inputs(), tensors)}
    if isinstance(example, dict): assert list(feed) == ['more', 'x']
    got, = session.run(None, feed)
    torch.testing.assert_close(torch.tensor(got)[:5], outputs(net, X, MORE), atol=1e-5, rtol=1e-5)

def test_onnx_without_its_packages_is_a_clear_no(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(ImportError, match='pip install onnx onnxscript'): Ensemble(linears(1, 4)).export(tmp_path/'a.onnx', X)

# --- snapshots

def test_snapshots_follow_every_group_s_own_rate():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    opt = torch.optim.SGD([dict(params=net[0].parameters(), lr=1.), dict(params=net[1].parameters(), lr=.1)])
    keep = Snapshots(net, opt, cycle=10)
    for t in range(1, 31):
        keep.step()
        want = .5*(1+math.cos(math.pi*(t % 10)/10))
        assert [o['lr'] for o in opt.param_groups] == pytest.approx([want, .1*want])
    assert len(keep.ensemble()) == 3 and keep.ensemble(2)[1] is keep.nets[2] and net.training

# --- teachers on disk

class Asked(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.n, self.stop = Two(), 0, None
    def forward(self, x, more):
        if self.n == self.stop: raise KeyboardInterrupt
        self.n += 1
        return self.net(x, more)

@pytest.mark.parametrize('as_dict', [False, True])
def test_outputs_of_several_inputs_resume_where_they_were(as_dict, tmp_path):
    x, more = torch.randn(103, 3), torch.randn(103, 2)
    def batches():
        for a, b in zip(x.split(10), more.split(10)): yield dict(more=b, x=a) if as_dict else (a, b)
    net = Asked().train()
    net.stop = 7
    with pytest.raises(KeyboardInterrupt): save_outputs(tmp_path, net, batches(), 'mine', half=False, batches=3)
    with pytest.raises(ValueError, match='is not finished'): SavedOutputs(tmp_path)
    net.stop, net.n = None, 0
    saved = save_outputs(tmp_path, net, batches(), 'mine', half=False, batches=3)
    assert net.n == 11-6                                          # two files of three batches were there
    want = outputs(net.net, x, more)
    rows = torch.randint(103, (500,))
    torch.testing.assert_close(saved[rows], want[rows], atol=1e-6, rtol=1e-5)
    assert torch.equal(saved[-1], saved[[102]]) and len(saved[5:9]) == 4
    with pytest.raises(IndexError): saved[[103]]
    wide = ((o[0], o[1]) for o in zip(x.split(20), more.split(20)))
    if not as_dict:
        with pytest.raises(ValueError, match='batches of the same size'):
            save_outputs(tmp_path, net, wide, 'mine', half=False, batches=3)

def test_a_regression_s_values_are_kept_as_they_are(tmp_path):
    net = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    saved = save_outputs(tmp_path, net, X.split(2), 'x', half=False)
    assert torch.equal(saved[:], torch.cat([outputs(net, o) for o in X.split(2)]))

# --- measures

def test_measures_are_those_of_scikit_learn():
    metrics = pytest.importorskip('sklearn.metrics')
    z, y = 3*torch.randn(500, 5, dtype=torch.float64), torch.randint(5, (500,))
    p, hot = z.softmax(-1).numpy(), F.one_hot(y, 5).numpy()
    got = measures(z, y)
    assert got['nll'] == pytest.approx(metrics.log_loss(y, p))
    assert got['accuracy'] == pytest.approx(100*metrics.accuracy_score(y, p.argmax(-1)))
    assert brier(z, y) == pytest.approx(sum(metrics.mean_squared_error(a, b) for a, b in zip(p.T, hot.T)))

def test_calibration_error_is_that_of_torchmetrics():
    functional = pytest.importorskip('torchmetrics.functional.classification')
    for size in (1., 3., 9.):
        z, y = size*torch.randn(2000, 10), torch.randint(10, (2000,))
        theirs = functional.multiclass_calibration_error(z.softmax(-1), y, 10, n_bins=15)
        assert measures(z, y)['ece'] == pytest.approx(100*theirs.item(), rel=1e-5)

@pytest.mark.parametrize('T', [.2, 1., 7.])
def test_the_best_temperature_is_found(T):
    g = torch.Generator().manual_seed(0)
    z = 2*torch.randn(20_000, 5, generator=g)
    y = torch.multinomial(z.softmax(-1), 1, generator=g).squeeze(-1)
    assert best_temperature(T*z, y) == pytest.approx(T, rel=.05)
