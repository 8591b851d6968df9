"The command `ekd_ntk` as a process: results, resuming, bad input; and the network with its linearisation on the formal data."
import json, os, subprocess, sys
import pytest
from ensemble_kd import regimes
from ensemble_kd.data import MultiView

RUN = '''import sys
from dataclasses import replace
from ensemble_kd import regimes
from ensemble_kd.data import MultiView
regimes.REGIME_PRESETS['tiny'] = regimes.RegimePreset(repeats=2, members=2, widths=(32,128), drift_n=20, dist=MultiView(d=60, sigma_p=.1), n=60, m=3,
    sigma0=(.05,), mass=(1.,), feature_noise=('shared',), sizes=(50,50), width=4, wider=(2,), net_steps=40, students=1)
regimes.REGIME_PRESETS['one'] = replace(regimes.REGIME_PRESETS['tiny'], repeats=1)
sys.argv[0] = 'ekd_ntk'
sys.exit(regimes.ekd_ntk())
'''

def ekd_ntk(tmp, *args):
    script = tmp/'run.py'; script.write_text(RUN)        # a file: fastcore parses arguments only for a real main module
    env = os.environ | dict(OMP_NUM_THREADS='1', MPLBACKEND='Agg'); env.pop('ENSEMBLE_KD_DATA', None)
    return subprocess.run([sys.executable, str(script), *args], env=env, capture_output=True, text=True, timeout=200, cwd=tmp)

@pytest.fixture(scope='module')
def done(tmp_path_factory):
    tmp = tmp_path_factory.mktemp('ntk')
    r = ekd_ntk(tmp, '--preset', 'tiny', '--out', 'a'); assert r.returncode==0, r.stderr
    return tmp, r

def test_ledger_and_figure(done):
    tmp, r = done
    d = json.loads((tmp/'a/ntk.json').read_text())
    assert {c['id'] for c in d['claims']} == {o[0] for o in regimes.MULTIVIEW_CLAIMS} and all(c['n']==2 for c in d['claims'])
    assert [o['seed'] for o in d['seeds']] == [0, 1] and d['provenance']['config']['data'] == 'multiview'
    assert (tmp/'a/ntk.png').read_bytes().startswith(b'\x89PNG')
    for text in ('linear, single-view data', 'network, multi-view data', 'verdict', 'linear.no_lottery'): assert text in r.stdout

def test_resumes_to_the_same_ledger(done):
    tmp, _ = done
    before = json.loads((tmp/'a/ntk.json').read_text())['claims']; kept = (tmp/'a/seed0.json').stat().st_mtime_ns
    (tmp/'a/seed1.json').unlink(); (tmp/'a/ntk.json').unlink()
    assert ekd_ntk(tmp, '--preset', 'tiny', '--out', 'a').returncode == 0
    assert (tmp/'a/seed0.json').stat().st_mtime_ns == kept and json.loads((tmp/'a/ntk.json').read_text())['claims'] == before

def test_digits(tmp_path):
    pytest.importorskip('sklearn')
    r = ekd_ntk(tmp_path, '--preset', 'one', '--data', 'digits', '--out', 'd'); assert r.returncode==0, r.stderr
    d = json.loads((tmp_path/'d/ntk.json').read_text())
    assert {c['id'] for c in d['claims']} == {o[0] for o in regimes.IMAGE_CLAIMS}
    assert all(set(o['linear']) <= set(o['network']) for o in d['seeds'])

@pytest.mark.parametrize('args, says', [(('--preset', 'huge'), 'unknown preset'), (('--data', 'mnist'), 'unknown data'), (('--device', 'gpu'), 'expected one of auto, cpu'),
                                        (('--preset', 'tiny', '--seed', '5', '--out', 'a'), 'seed was 0, now 5')])
def test_bad_input_is_one_line(done, args, says):
    r = ekd_ntk(done[0], *args)
    line = r.stderr.strip().splitlines()[-1]
    assert r.returncode == 2 and line.startswith('ekd_ntk: ') and says in line and 'Traceback' not in r.stderr

def test_feature_learning_against_linearised():
    "The networks have no error on multi-view data and a lottery; their linearisations have errors there and both views; both fit their training data."
    p = regimes.multiview_point(MultiView(d=160, sigma_p=.095), 200, 6, .03, 3, 11, n_test=500)
    assert max(p['train']['linear'].values()) == 0 and p['train']['network']['single'] == 0
    assert p['network']['single']['multi'] < .05 < .1 < p['linear']['single']['multi']
    assert p['both']['network'] < .5 < .8 < p['both']['linear']
    assert p['network']['ensemble']['single'] < .3*p['network']['single']['single'] and p['linear']['ensemble']['single'] < p['linear']['single']['single']
    assert abs(p['linear']['kd']['single'] - p['linear']['self_kd']['single']) < .02       # the ensemble teaches what a single model does

def test_figure_1_by_the_machinery_of_the_tables(tmp_path):
    "`ekd_ntk --preset paper` is `ekd_cifar --preset ntk`: a linearised network as every unit, here a tiny one on synthetic images."
    from ensemble_kd.cifar import Preset, Recipe, Run, choose_rows, run_row
    p = Preset('textures', 'tiny-ntk', Recipe(epochs=8, batch=40, lr=.1, weight_decay=0., joint_lr=2., augment=True, bounded=True, temperature=4.),
               n_train=400, members=2, joint=2, students=1, selves=1, controls=0)
    ledger = run_row(Run(p, tmp_path/'run'), progress=False)
    assert ledger['done'] == ledger['units'] == 5 and {c['id'] for c in ledger['claims']} == {'ntk.ensemble_gain', 'ntk.joint_over_ensemble', 'ntk.kd_gain', 'ntk.self_gain'}
    accuracy = {c: [o['accuracy'] for o in v] for c, v in ledger['rows'][0]['columns'].items()}
    assert min(accuracy['single']) > 35 and accuracy['single'][0] != accuracy['single'][1]     # four classes; each member has weights of its own
    assert [(o.data, o.net) for o in choose_rows('ntk')] == [('cifar10', '10-4-ntk'), ('cifar100', '10-4-ntk')]

def test_paper_preset_wants_cifar(tmp_path):
    r = ekd_ntk(tmp_path, '--preset', 'paper', '--data', 'digits')
    assert r.returncode == 2 and 'for cifar10 and cifar100' in r.stderr
