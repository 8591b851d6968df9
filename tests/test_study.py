"`ekd_study` as a user runs it: results, resumed with more seeds, damaged, changed, without scikit-learn."
import sys
import pytest
from conftest import comparable
from ensemble_kd.studies import CLAIMS, ekd_study

pytestmark = pytest.mark.usefixtures('one_thread')      # the command settles for one, too

TINY = dict(seeds=2, members=2, students=1, train=100, valid=100, width=2, epochs=1, lr=.01)

def command(out, **settings):
    pytest.importorskip('sklearn')
    ekd_study(**TINY | dict(out=str(out)) | settings)

def refused(capsys, out, **settings):
    "The one line with which the command ends"
    with pytest.raises(SystemExit) as e: ekd_study(**TINY | dict(out=str(out)) | settings)
    line, = capsys.readouterr().err.strip().splitlines()
    assert e.value.code == 2 and line.startswith('ekd_study: ')
    return line

def ledger(out): return comparable(out/'study.json', 'rows')

@pytest.fixture(scope='module')
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp('study')/'done'
    command(out)
    return out

def test_ledger_table_and_picture(done, capsys):
    command(done)                                      # nothing left to do but to show it
    found, out = ledger(done), capsys.readouterr().out
    assert [o['seed'] for o in found['rows']] == [0, 1] and found['provenance']['config']['members'] == 2
    assert [c['id'] for c in found['claims']] == [c.id for c in CLAIMS]
    for c in found['claims']:
        assert {'id', 'statement', 'paper', 'rule', 'value', 'ci95', 'n', 'unit', 'verdict'} <= c.keys()
        assert c['n'] == 2 and c['id'] in out
    assert all(o in out for o in ('2 repeats', *found['rows'][0]['error']))
    assert (done/'study.png').read_bytes().startswith(b'\x89PNG')

def test_more_seeds_later_are_the_same_as_all_at_once(done, tmp_path):
    out = tmp_path/'later'
    command(out, seeds=1)
    first = (out/'units/repeat0.safetensors').stat().st_mtime_ns
    command(out)
    assert (out/'units/repeat0.safetensors').stat().st_mtime_ns == first
    assert ledger(out) == ledger(done)

def test_a_damaged_repeat_is_computed_again(done, capsys):
    before, file = ledger(done), done/'units/repeat0.safetensors'
    file.write_bytes(file.read_bytes()[:-9])
    command(done)
    assert 'is damaged' in capsys.readouterr().out and ledger(done) == before

@pytest.mark.parametrize('change, says', [
    (dict(epochs=2), 'recipe.epochs was 1, now 2'), (dict(width=3), 'width=2'), (dict(students=2), 'students was 1, now 2')])
def test_a_folder_of_another_run_is_refused(done, change, says, capsys):
    line = refused(capsys, done, **change)
    assert 'other settings' in line and says in line

def test_a_study_of_diverged_networks_is_no_study(tmp_path, capsys):
    with pytest.raises(SystemExit) as e: command(tmp_path/'wild', lr=1e5)
    *bar, line = capsys.readouterr().err.strip().splitlines()
    assert e.value.code == 2 and line.startswith('ekd_study: network 1 of 2 diverged in epoch 0')

def test_missing_sklearn_says_what_to_install(tmp_path, monkeypatch, capsys):
    for name in ('sklearn', 'sklearn.datasets'): monkeypatch.setitem(sys.modules, name, None)
    assert 'pip install ensemble_kd[digits]' in refused(capsys, tmp_path/'none')
