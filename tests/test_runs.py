"A run's folder when things go wrong: any damaged byte, a full disk, strangers' files."
import os
import pytest, torch
from ensemble_kd.runs import Run, Unit, save_arrays

ARRAYS = dict(x=torch.arange(12.).view(3, 4), y=torch.arange(5), flag=torch.tensor(True))

@pytest.fixture
def run(tmp_path): return Run(tmp_path/'run', dict(seed=1), tell=lambda text: None)

def test_any_damaged_byte_is_found(run):
    run.save('a', ARRAYS | dict(text='ok', values=[1, 2.5]))
    file, want = run.file('a'), run.load('a')
    good = file.read_bytes()
    for at in range(len(good)):
        file.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at+1:])
        assert run.load('a') is None and not file.exists(), f'byte {at} of {len(good)}'
    for end in range(len(good)):
        file.write_bytes(good[:end])
        assert run.load('a') is None
    file.write_bytes(good)
    got = run.load('a')
    assert got.keys() == want.keys() and all(torch.equal(got[k], v) for k, v in ARRAYS.items())

@pytest.mark.skipif(os.name != 'posix', reason='needs RLIMIT_FSIZE')
def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(run):
    resource = pytest.importorskip('resource')
    run.save('a', ARRAYS)
    before, (soft, hard) = run.file('a').read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
        with pytest.raises(OSError, match='cannot write .*units/a.safetensors.* and run the same command again'):
            run.save('a', dict(x=torch.zeros(10_000)))
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert run.file('a').read_bytes() == before
    assert [o.name for o in run.file('a').parent.iterdir()] == ['a.safetensors']

def test_half_written_files_and_strangers_are_no_units(run):
    folder = run.file('a').parent
    folder.mkdir()
    (folder/'.a.safetensors.1.tmp').write_bytes(b'half')
    save_arrays(run.file('b'), dict(unit='b', run='another', values={}), ARRAYS)
    assert not run.done('a') and run.load('b') is None
    run.work([Unit('a', lambda: ARRAYS), Unit('b', lambda: dict(n=1), needs=('a',))])
    assert run.load('b')['n'] == 1 and torch.equal(run.load('a')['x'], ARRAYS['x'])

def test_an_error_in_a_unit_keeps_what_is_done_and_gives_its_lock_back(run):
    def broken(): raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError): run.work([Unit('a', lambda: ARRAYS), Unit('b', broken, needs=('a',))])
    assert run.done('a') and not run.done('b')
    with run.claim('b') as mine: assert mine
