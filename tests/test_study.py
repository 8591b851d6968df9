"""`study` and `ekd_study` as a user has them: results, resumed with more repeats, killed, damaged, changed, shared by two
processes; data of every kind."""
import os, random, signal, subprocess, sys, time
import numpy as np
import pytest, torch
from conftest import comparable
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from ensemble_kd import answers, studies
from ensemble_kd.members import Ensemble
from ensemble_kd.studies import CLAIMS, ekd_study, study
from ensemble_kd.trainer import Recipe

pytestmark = pytest.mark.usefixtures('one_thread')      # the command settles for one, too

TINY = dict(seeds=2, members=2, students=1, train=100, valid=100, width=2, epochs=1, lr=.01)

@pytest.fixture(autouse=True)
def side_by_side(monkeypatch):
    "What the clock says is not the same each time, and neither are last digits"
    def trial(p): return dict(stacked=not studies.why_alone(p), why=studies.why_alone(p) or 'for the test')
    monkeypatch.setattr(studies, 'trial', trial)

def command(out, **settings):
    pytest.importorskip('sklearn')
    ekd_study(**TINY | dict(out=str(out)) | settings)

def refused(capsys, out, **settings):
    "The one line with which the command ends"
    with pytest.raises(SystemExit) as e: ekd_study(**TINY | dict(out=str(out)) | settings)
    line, = capsys.readouterr().err.strip().splitlines()
    assert e.value.code == 2 and line.startswith('ekd_study: ')
    return line

def ledger(out):
    "A ledger without times"
    found = comparable(out/'study.json', 'rows')
    found.pop('cost')
    found['provenance']['config'].pop('trial')
    for row in found['rows']: row.pop('train_s')
    return found

@pytest.fixture
def done(tmp_path_factory, side_by_side):
    "One study for all tests that only look at it"
    out = tmp_path_factory.getbasetemp()/'done'
    command(out)
    return out

# --- the command, on digits

def test_ledger_tables_picture_and_answer(done, capsys):
    command(done)                                      # nothing left to do but to show it
    found, out = ledger(done), capsys.readouterr().out
    assert [o['seed'] for o in found['rows']] == [0, 1] and found['provenance']['config']['members'] == 2
    assert [c['id'] for c in found['claims']] == [c.id for c in CLAIMS]
    for c in found['claims']:
        assert {'id', 'statement', 'paper', 'rule', 'value', 'ci95', 'n', 'unit', 'verdict'} <= c.keys()
        assert c['n'] == 2 and c['id'] in out
    said = '2 repeats', 'Two repeats cannot tell', 'Brier', 'gain over one', 'error correlation'
    assert all(o in out for o in (*said, *found['rows'][0]['error']))
    assert (done/'study.png').read_bytes().startswith(b'\x89PNG')

def test_more_seeds_later_are_the_same_as_all_at_once(done, tmp_path):
    out = tmp_path/'later'
    command(out, seeds=1)
    first = (out/'units/repeat0.safetensors').stat().st_mtime_ns
    command(out)
    assert (out/'units/repeat0.safetensors').stat().st_mtime_ns == first
    assert ledger(out) == ledger(done)

def test_damaged_units_are_computed_again(done, capsys):
    before = ledger(done)
    units = sorted((done/'units').glob('repeat0*'))
    for file in units: file.write_bytes(file.read_bytes()[:-9])
    command(done)
    assert 'is damaged' in capsys.readouterr().out and ledger(done) == before

@pytest.mark.parametrize('change, says', [
    (dict(epochs=2), 'recipe.epochs was 1, now 2'), (dict(width=3), 'width 2'), (dict(students=2), 'students was 1, now 2')])
def test_a_folder_of_another_run_is_refused(done, change, says, capsys):
    line = refused(capsys, done, **change)
    assert 'other settings' in line and says in line

def test_a_study_of_diverged_networks_is_no_study(tmp_path, capsys):
    with pytest.raises(SystemExit) as e: command(tmp_path/'wild', lr=1e5)
    *bar, line = capsys.readouterr().err.strip().splitlines()
    assert e.value.code == 2 and line.startswith('ekd_study: fewer than two networks learned: diverged in epoch 0')

def test_missing_sklearn_says_what_to_install(tmp_path, monkeypatch, capsys):
    for name in ('sklearn', 'sklearn.datasets'): monkeypatch.setitem(sys.modules, name, None)
    assert 'pip install ensemble_kd[digits]' in refused(capsys, tmp_path/'none')

# --- the command, on files

def table(path, n=90):
    rng = np.random.default_rng(0)
    rows = [(a, b, 'yes' if a > b else 'no') for a, b in rng.normal(size=(n, 2)).round(3)]
    path.write_text('a,b,answer\n' + '\n'.join(','.join(map(str, o)) for o in rows))
    return path

def pictures(path):
    from torchvision.io import write_png
    for label in range(2):
        (path/f'class{label}').mkdir(parents=True)
        for i in range(20):
            image = torch.randint(90, (3, 9, 9), dtype=torch.uint8) + 150*label*torch.ones(1, dtype=torch.uint8)
            write_png(image, str(path/f'class{label}'/f'{i}.png'))
    return path

def arrays(path):
    x = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
    np.savez(path, x=x, y=x.sum(1))
    return path

FILES = dict(table=(lambda d: table(d/'t.csv'), dict(label='answer'), 'test error'),
             pictures=(lambda d: pictures(d/'p'), dict(size=8), 'test error'),
             arrays=(lambda d: arrays(d/'a.npz'), {}, 'RMSE'))

@pytest.mark.parametrize('kind', FILES)
def test_files(kind, tmp_path, capsys):
    make, more, says = FILES[kind]
    small = dict(seeds=3, train=None, valid=None, epochs=2)
    command(tmp_path/'out', data=str(make(tmp_path)), **small | more)
    out = capsys.readouterr().out
    assert says in out and '3 repeats of 2 networks' in out and 'cannot tell' in out or 'gains' in out or 'help' in out

@pytest.mark.parametrize('text, says', [('a,b\n1,2\n', "no column 'label'"), ('a,label\nx,\n', 'has no value in row 2'),
                                        ('', 'has no rows'), ('a,label\n1,0\n', 'at least 5 samples')])
def test_bad_tables_are_one_line(text, says, tmp_path, capsys):
    (tmp_path/'t.csv').write_text(text)
    assert says in refused(capsys, tmp_path/'out', data=str(tmp_path/'t.csv'))

# --- the function, on data and networks of every kind

FAST = dict(members=2, repeats=1, progress=False, device='cpu', valid=20,
            recipe=Recipe(epochs=2, batch=20, lr=.01, optimizer='adam', patience=1))

def blobs(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    return torch.randn(n, 4, generator=g) + 2*F.one_hot(y, 4), y

class Words(Dataset):
    "Texts of different lengths; the label is whether the first word occurs again."
    def __len__(self): return 70
    def __getitem__(self, i):
        words = torch.randint(1, 9, (3 + i % 4,), generator=torch.Generator().manual_seed(i))
        return dict(words=words, label=int(words[0] in words[1:]))

def padded(samples):
    words = nn.utils.rnn.pad_sequence([o['words'] for o in samples], batch_first=True)
    return dict(words=nn.functional.pad(words, (0, 6-words.shape[1])), label=torch.tensor([o['label'] for o in samples]))

class Reader(nn.Module):
    "Embeddings, attention, tied weights, a bare parameter, dropout."
    def __init__(self, dropout=.1):
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        self.place = nn.Parameter(torch.randn(6, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout, batch_first=True)
        self.out = nn.Linear(8, 9, bias=False)
        self.out.weight = self.embed.weight
    def forward(self, words): return self.out(self.layer(self.embed(words) + self.place).mean(1))[:, :2]

class Two(nn.Module):
    "Takes two inputs."
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    def forward(self, a, b): return self.net(a + b)

def linear(k=3): return nn.Linear(4, k)
x, y = blobs(90)
KINDS = dict(
    tensors=(linear, (x, y)), arrays=(linear, (x.numpy(), y.numpy())), pairs=(linear, [(a, int(b)) for a, b in zip(x, y)]),
    loader=(linear, DataLoader([(a, int(b)) for a, b in zip(x, y)], batch_size=10)), two=(Two, ((x, x), y)),
    named=(Two, (dict(a=x, b=x), y)), words=(Reader, DataLoader(Words(), collate_fn=padded)),
    many=(lambda: linear(30), (x, torch.arange(90) % 30)), values=(lambda: linear(1), (x, x.sum(1))),
    vectors=(lambda: linear(2), (x, x[:,:2])))

def row_labels(data):
    "The labels of any of these data."
    if isinstance(data, tuple): return data[1]
    if isinstance(data, DataLoader): data = data.dataset
    return torch.tensor([data[i]['label'] if isinstance(data[i], dict) else data[i][1] for i in range(len(data))])

@pytest.mark.parametrize('kind', KINDS)
def test_data_of_every_kind(kind, tmp_path):
    make, data = KINDS[kind]
    result = study(make, data, .3, out=tmp_path, **FAST)
    row, = result.rows
    assert {'single', 'ensemble', 'average', 'kd', 'self_kd'} <= row['error'].keys()
    assert ('smoothing' in row['error']) == (kind not in ('values', 'vectors'))
    assert 'One repeat cannot tell' in result.answer and result._repr_markdown_()
    held = result.test_rows(row_labels(data))
    assert len(held) == row['n_test'] == result.config['test'] and len(set(held.tolist())) == len(held)
    assert isinstance(result.student, nn.Module) and len(Ensemble.load(tmp_path, make)) == 2
    again = study(make, data, .3, out=tmp_path/'again', **FAST)
    assert again.rows[0]['error'] == row['error']                # reproducible
    assert row['measures']['single']['error'] == pytest.approx(row['by_size'][0])

@pytest.mark.parametrize('make', [Reader, Two, linear, lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(.5), nn.Linear(8, 3))])
def test_members_are_independent_and_do_not_depend_on_their_company(make, tmp_path):
    data = KINDS['words'][1] if make is Reader else KINDS['two'][1] if make is Two else (x, y)
    two, three = (study(make, data, .3, out=tmp_path/str(n), stacked=False, **FAST | dict(members=n)) for n in (2, 3))
    a, b, _ = (list(o.parameters()) for o in three.ensemble)
    assert not any(torch.equal(p, q) for p, q in zip(a, b) if p.ndim > 1 or p.numel() > 9)
    for p, q in zip(two.ensemble.parameters(), three.ensemble.parameters()): torch.testing.assert_close(p, q)

def test_the_rows_that_were_set_aside_give_the_error_of_the_ensemble(tmp_path):
    for out, y in (('labels', blobs(90)[1]), ('values', x.sum(1))):
        result = study(lambda: linear(1 if y.is_floating_point() else 3), (x, y), .3, out=tmp_path/out, **FAST)
        rows = result.test_rows(y)
        with torch.no_grad(): z = result.ensemble(x[rows])
        if y.is_floating_point(): error = (z.flatten() - y[rows]).square().mean().sqrt()
        else: error = 100*(z.argmax(-1) != y[rows]).double().mean()
        assert result.rows[0]['error']['ensemble'] == pytest.approx(error.item(), rel=1e-4)

def test_cautions_of_shared_and_of_few_test_data(tmp_path):
    result = study(linear, (x, y), blobs(30, 1), out=tmp_path, **FAST | dict(repeats=3))
    assert 'All repeats share the test data' in result.notes() and result.rows[0]['n_test'] == 30
    for o in result.rows[0]['error']:
        if o == 'single': continue
        low, high = answers.effect(result.rows, o).ci
        assert high-low >= 2*100/30 - 1e-9
    assert '± 0 points' not in result.answer

def test_what_varies_makes_the_ensemble(tmp_path):
    def starts(vary):
        result = study(linear, (x, y), .3, out=tmp_path/'-'.join(vary), vary=vary, **FAST)
        return result.rows[0]['between']['single']['disagreement']
    assert starts(('weights',)) > 0
    with pytest.raises(ValueError, match='all members became the same network'): starts(('noise',)) # no noise in these data

def test_own_loss_optimiser_schedule_and_callbacks(tmp_path):
    seen = []
    class Count:
        def after_epoch(self, now): seen.append(now.epoch)
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1., 2., 1.]))
    own = dict(loss=weighted, optimizer=lambda ps: torch.optim.SGD(ps, .1), callbacks=[Count()],
               scheduler=lambda opt, n: torch.optim.lr_scheduler.CosineAnnealingLR(opt, n))
    result = study(linear, (x, y), .3, out=tmp_path, **FAST | own)
    assert seen and 'of your own' in result.notes() and result.rows[0]['error']['single'] < 60

# --- robust

WORKER = '''
import sys, torch
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
from test_study import *
slow = FAST | dict(repeats=2, students=1, stacked=False, recipe=Recipe(epochs=5, batch=10, lr=.01, optimizer='adam'))
study(linear, (x, y), .3, out=sys.argv[1], **slow)
'''

def worker(tmp, out, **env):
    file = tmp/'worker.py'
    file.write_text(WORKER.format(tests=os.path.dirname(__file__)))
    return subprocess.Popen([sys.executable, str(file), str(out)], env=os.environ | env, stderr=subprocess.PIPE)

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "What an undisturbed process finds"
    tmp = tmp_path_factory.mktemp('whole')
    p = worker(tmp, tmp/'out')
    assert p.wait(120) == 0, p.stderr.read()
    return tmp/'out'

@pytest.mark.skipif(os.name != 'posix', reason='needs SIGKILL')
def test_killed_anywhere_it_gives_the_identical_result(whole, tmp_path):
    cut, rng = tmp_path/'cut', random.Random(0)
    for target in sorted(rng.sample(range(1, 20), 3)):           # after so many units, in the midst of the next
        p = worker(tmp_path, cut)
        while p.poll() is None and len([*cut.glob('units/*')]) < target: time.sleep(.003)
        time.sleep(rng.random()*.02)
        p.send_signal(signal.SIGKILL)
        p.wait()
    p = worker(tmp_path, cut)
    assert p.wait(120) == 0, p.stderr.read()
    assert ledger(cut) == ledger(whole)
    for a, b in zip(*(Ensemble.load(o, linear).parameters() for o in (whole, cut))): assert torch.equal(a, b)

def test_two_processes_share_the_networks(whole, tmp_path):
    both = [worker(tmp_path, tmp_path/'out', RANK=str(i)) for i in range(2)]
    for p in both: assert p.wait(120) == 0, p.stderr.read()
    assert ledger(tmp_path/'out') == ledger(whole)

def test_data_that_changed_are_refused(tmp_path):
    study(linear, (x, y), .3, out=tmp_path, **FAST)
    with pytest.raises(ValueError, match='train was .*, now'): study(linear, (x+1, y), .3, out=tmp_path, **FAST)

def test_one_network_that_diverges_does_not_take_the_others_along(tmp_path):
    def sometimes():
        net = linear()
        if torch.rand(1) < .3: net.weight.data *= float('nan')
        return net
    for stacked in (True, False):
        result = study(sometimes, (x, y), .3, out=tmp_path/str(stacked), stacked=stacked, **FAST | dict(members=6))
        assert 'Diverged and left out:' in result.notes() and 'of single' in result.notes()
        assert 2 <= len(result.ensemble) < 6
