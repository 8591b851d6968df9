"`ekd_ntk` as a user runs it, and the network beside its linearisation on the formal data."
from dataclasses import replace
from unittest import mock
import pytest
from conftest import comparable
from ensemble_kd import regimes
from ensemble_kd.data import MultiView
from ensemble_kd.regimes import IMAGE_CLAIMS, RegimePreset, multiview_point

pytestmark = pytest.mark.usefixtures('one_thread')

TINY = RegimePreset(repeats=2, members=2, widths=(32, 128), drift_n=20, sizes=(50, 50), width=4, wider=(2,), epochs=10,
                    students=1)
PRESETS = dict(tiny=TINY, one=replace(TINY, repeats=1))

def command(out, preset='tiny', data='digits', **settings):
    with mock.patch.dict(regimes.REGIME_PRESETS, PRESETS):
        regimes.ekd_ntk(preset=preset, data=data, out=str(out), **settings)

def ledger(out): return comparable(out/'ntk.json')

@pytest.fixture(scope='module')
def done(tmp_path_factory):
    "The folder of a finished run on digits"
    pytest.importorskip('sklearn')
    out = tmp_path_factory.mktemp('ntk')/'done'
    command(out)
    return out

def test_ledger_table_and_picture(done, capsys):
    command(done)                                  # nothing left to do but to show it
    found, out = ledger(done), capsys.readouterr().out
    assert {c['id'] for c in found['claims']} == {c.id for c in IMAGE_CLAIMS}
    assert all(c['n'] == 2 and c['id'] in out for c in found['claims'])
    assert [o['seed'] for o in found['seeds']] == [0, 1] and found['provenance']['config']['data'] == 'digits'
    assert all(o['linear'].keys() <= o['network'].keys() for o in found['seeds'])
    assert (done/'ntk.png').read_bytes().startswith(b'\x89PNG')

def test_a_missing_seed_is_computed_again_to_the_same_ledger(done):
    before, kept = ledger(done), (done/'units/seed0.safetensors').stat().st_mtime_ns
    for name in ('units/seed1.safetensors', 'ntk.json'): (done/name).unlink()
    command(done)
    assert (done/'units/seed0.safetensors').stat().st_mtime_ns == kept and ledger(done) == before

@pytest.mark.parametrize('settings, says', [
    (dict(preset='huge'), 'unknown preset'), (dict(data='mnist'), 'unknown data'),
    (dict(device='gpu'), 'expected one of auto, cpu'), (dict(seed=-1), 'seed must be'),
    (dict(preset='paper', data='digits'), 'expected one of cifar10, cifar100'),
    (dict(preset='one'), 'other settings'), (dict(data='multiview'), 'other settings')])
def test_bad_input_is_one_line(done, settings, says, tmp_path, capsys):
    with pytest.raises(SystemExit) as e: command(done if says == 'other settings' else tmp_path/'new', **settings)
    line, = capsys.readouterr().err.strip().splitlines()
    assert e.value.code == 2 and line.startswith('ekd_ntk: ') and says in line

def test_feature_learning_against_linearised():
    "Networks have almost no error on multi-view data, and a lottery; their linearisations have errors there."
    p = multiview_point(MultiView(k=4, P=8, d=80, s=1., sigma_p=.14), 60, 4, .03, 3, 0, n_test=400)
    net, lin = p['network'], p['linear']
    assert net['single']['multi'] < .02 < .08 < lin['single']['multi']
    assert net['single']['single'] > .15 and p['both']['network'] < .5
    assert max(net[o]['single'] for o in ('ensemble', 'kd', 'self_kd')) < .3*net['single']['single']
    assert lin['ensemble']['single'] < .6*lin['single']['single']
    assert abs(lin['kd']['single']-lin['self_kd']['single']) < .02       # the ensemble teaches what a single model does
    assert lin['kd']['single'] > .9*lin['single']['single']
