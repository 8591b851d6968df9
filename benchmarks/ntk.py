"""How fast are the tangent kernels, beside the torch.func tutorial's and neural-tangents'?

    python benchmarks/ntk.py                       # about two minutes
    python benchmarks/ntk.py --quick               # tiny sizes, seconds: shows that everything runs, its numbers mean nothing
    python benchmarks/ntk.py --json out.json       # also writes the rows, and where they come from, as JSON
    python benchmarks/ntk.py --nt_python VENV/bin/python   # with neural-tangents, from an environment of its own

neural-tangents 0.6.5 needs old versions, so it does not fit into this package's own environment:

    python -m venv VENV && VENV/bin/pip install neural-tangents==0.6.5 jax==0.4.30 jaxlib==0.4.30 tf2jax==0.3.6 'numpy<2' 'scipy<1.14'

The network: two 3×3 convolutions of 32 channels without padding, ReLU after each, flatten, one linear layer to 10 outputs (the
tutorial's network with one convolution less), on 16×16×3 inputs. The tutorial's way is vmap(jacrev) and an einsum a parameter; as
ours, it computes the features of x1 once when x2 is x1. Its features of 512 images take 1.1 GiB, and are not chunked: that would not
make it faster. neural-tangents is compiled, in its own preferred channel order, with its default implementation (Jacobian contraction) and with its
fastest (structured derivatives), which fails as published with JAX 0.4.30: two names that moved are put back so that it runs.

The floor. `ntk_cost` counts the multiply-adds of each method, layer by layer; of ours, no run can be faster than twice that many
operations at the best float32 rate of a matrix product, measured here too; "of best" is that share.

How it is measured. First every kernel is held against the float64 one. Then the rows take turns, round after round, one untimed call
before the timed ones, nothing in the background. A time is a median over rounds, and so is a ratio: of two rows in one round. Peak
memory is that of a fresh process, beyond what it held before and beyond the kernel itself.
"""
import json as jsonlib, os, resource, subprocess, sys, tempfile, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
import numpy as np, torch
from fastcore.script import call_parse
from torch import nn
from torch.func import functional_call, jacrev, vmap
from ensemble_kd.claims import one_line_errors, provenance, write_json
from ensemble_kd.model import matmul_t
from ensemble_kd.ntk import empirical_ntk, ntk_cost

def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32*12*12, 10))

def images(n): return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))

# --- the rivals

def tutorial(net, x, kind):
    "pytorch.org/tutorials/intermediate/neural_tangent_kernels: Jacobian contraction, with x2 = x1."
    params = {k: v.detach() for k, v in net.named_parameters()}
    one = lambda params, x: functional_call(net, params, (x[None],))[0]
    jac = [j.flatten(2) for j in vmap(jacrev(one), (None, 0))(params, x).values()]
    if kind=='full': return torch.stack([torch.einsum('Naf,Mbf->NMab', j, j) for j in jac]).sum(0)
    return torch.stack([torch.einsum('Naf,Maf->NM', j, j) for j in jac]).sum(0) / jac[0].shape[1]

class Rival:
    "neural-tangents in a process of its own, which computes when told to and tells how long it took."
    def __init__(self, python, net, x, kind):
        self.dir = tempfile.TemporaryDirectory(); file = Path(self.dir.name)/'in.npz'
        w = dict(zip(('w1', 'b1', 'w2', 'b2', 'w3', 'b3'), (p.detach().numpy() for p in net.parameters())))
        np.savez(file, x=x.numpy(), **w)
        env = os.environ | dict(XLA_FLAGS='' if torch.get_num_threads()>1 else '--xla_cpu_multi_thread_eigen=false', NPROC=str(torch.get_num_threads()), JAX_PLATFORMS='cpu')
        env.pop('PYTHONPATH', None)
        self.process = subprocess.Popen([python, Path(__file__).with_name('ntk_rival.py'), file, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)
        self.about = self.answer()
        self.kernel = torch.from_numpy(np.load(file.with_name('out.npy'), allow_pickle=False))
    def answer(self):
        line = self.process.stdout.readline()
        if not line: raise ValueError(f'neural-tangents stopped with status {self.process.wait()}: is it installed there? See the head of this file')
        return jsonlib.loads(line)
    def seconds(self, how):
        self.process.stdin.write(f'{how}\n'); self.process.stdin.flush()
        return self.answer()
    def close(self): self.process.stdin.close(); self.process.wait(); self.process.stdout.close(); self.dir.cleanup()

# --- checking and timing

def check(name, K, right):
    error = ((K.double()-right).norm() / right.norm()).item()
    if not error < 1e-4: raise ValueError(f'{name}: the relative error of the kernel is {error:.1e}, expected < 1e-4; nothing was timed')
    return error

def seconds(f):
    start = time.perf_counter(); f()
    return time.perf_counter()-start

def take_turns(steps, rounds):
    "Name → seconds of each round; a step returns its own seconds or None."
    for f in steps.values(): f()
    times = {name: [] for name in steps}
    for _ in range(rounds):
        for name, f in steps.items():
            t = time.perf_counter(); own = f()
            times[name].append(own if isinstance(own, float) else time.perf_counter()-t)
    return times

def product(n, onednn):
    a, b, out = torch.randn(3, n, n)
    def step(): matmul_t(a, b) if onednn else torch.mm(a, b, out=out)
    return step

def peak_mib(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform=='darwin' else 2**10)

def memory(n, mib):
    "MiB by which a traced kernel of n images raises this process's peak beyond the kernel itself, and seconds."
    net, x = network(), images(n)
    empirical_ntk(net, x[:4], kind='trace', max_mib=64)           # libraries load and take what they need
    before, start = peak_mib(), time.perf_counter()
    K = empirical_ntk(net, x, kind='trace', max_mib=mib, progress=f'{n} images in {mib} MiB')
    return peak_mib()-before-K.numel()*4/2**20, time.perf_counter()-start

def in_child(f, *args):
    with ProcessPoolExecutor(1, mp_context=get_context('forkserver')) as ex: return ex.submit(f, *args).result()

# --- the table

def compare(kind, n, rounds, nt_python, targets):
    "Rows of one kernel: ours against the others, and the share of the floor's rate."
    net, x = network(), images(n)
    right, small = empirical_ntk(network().double(), x.double(), kind=kind, method='jacobian'), 8
    check('the float64 kernel', right[:small,:small], tutorial(network().double(), x[:small].double(), kind))
    def ours(): empirical_ntk(net, x, kind=kind)
    def theirs(): tutorial(net, x, kind)
    check('ours', empirical_ntk(net, x, kind=kind), right); check("the tutorial's", tutorial(net, x, kind), right)
    steps, rival = {f'{kind} {n}: ours': ours, f'{kind} {n}: torch.func tutorial': theirs}, nt_python and Rival(nt_python, net, x, kind)
    if rival: check('neural-tangents', rival.kernel, right)
    for how, what in dict(jacobian_contraction='its default', structured_derivatives='mended').items() if rival else ():
        steps[f'{kind} {n}: neural-tangents ({how.split("_")[0]}, {what})'] = lambda how=how: rival.seconds(how)
    try: times = take_turns(steps | {f'product {how}': product(s, how=='oneDNN') for how, s in (('mm', 2048), ('oneDNN', 2048))}, rounds)
    finally: rival and rival.close()
    first, cost = next(iter(steps)), ntk_cost(net, x, kind=kind)
    best = 2*2048**3 / min(median(times[f'product {o}']) for o in ('mm', 'oneDNN'))
    def row(name, target):
        ratio, ops = median(b/a for a, b in zip(times[first], times[name])), 2*cost['layer' if name==first else 'jacobian']
        own = dict(name=name, ms=1e3*median(times[name]), ratio=ratio, target=target and f'≥ {target}', met=ratio>=target if target else None)
        return own | (dict(gflop=ops/1e9, of_best=ops/median(times[name])/best) if 'neural' not in name else {})
    return [row(name, target) for name, target in zip(steps, (None, *targets))], best, rival and rival.about['once']

def printed(rows, best, missing):
    lines = [f"{'':52}{'ms':>9}{'GFLOP':>8}{'of best':>9}{'× ours':>8}{'target':>8}  met"]
    for r in rows: lines.append(f"{r['name']:52}{r['ms']:9.1f}{r.get('gflop', 0) or '':8.3}{format(r['of_best'], '.1%') if 'of_best' in r else '':>9}{r['ratio']:8.2f}{r['target'] or '':>8}  {({None: '', True: 'yes', False: 'no'})[r['met']]}" if 'gflop' in r else
        f"{r['name']:52}{r['ms']:9.1f}{'':17}{r['ratio']:8.2f}{r['target'] or '':>8}  {({None: '', True: 'yes', False: 'no'})[r['met']]}")
    return '\n'.join(lines + [f'\nbest rate of a matrix product: {best/1e9:.0f} GFLOP/s'] + ([missing] if missing else []))

@call_parse
@one_line_errors
def main(rounds:int=7,        # turns of each row
         quick:bool=False,    # tiny sizes, to see that everything runs
         nt_python:str=None,  # Python of an environment with neural-tangents
         json:str=None,       # also write the rows here
        ):
    "Measure tangent kernels against the torch.func tutorial and neural-tangents, side by side."
    start, (full, trace, many) = time.monotonic(), (6, 12, 40) if quick else (64, 512, 4000)
    missing = None if nt_python else 'neural-tangents: not measured, needs --nt_python (see the head of the file)'
    mib, took = in_child(memory, many, 512)
    rows, best, once = compare('full', full, rounds, nt_python, (1.5, 4., 4.))
    more, *_ = compare('trace', trace, max(3, rounds//2), None, (3.,))
    floor = 2*ntk_cost(network(), images(many), kind='trace')['layer']
    peak = dict(name=f'trace {many}: peak memory beyond the kernel, of 512 MiB allowed', mib=mib, seconds=took, gflop=floor/1e9, of_best=floor/took/best, target='≤ 512', met=mib<=512)
    about = provenance(dict(network='conv 3-32, conv 32-32, linear 4608-10', input=[3,16,16], rounds=rounds, threads=torch.get_num_threads()), 0, wall_s=time.monotonic()-start)
    print(f"{about['device']}; {torch.get_num_threads()} threads; medians over {rounds} rounds\n")
    print(printed(rows+more, best, missing))
    print(f"\n{peak['name']}: {mib:.0f} MiB, {'met' if peak['met'] else 'not met'}; {took:.1f} s for {floor/1e9:.0f} GFLOP, {peak['of_best']:.1%} of the best rate")
    if once: print('neural-tangents, one call of each implementation (seconds): ' + ', '.join(f'{o} {s:.3f}' for o, s in once.items()))
    if json: write_json(json, dict(neural_tangents_once=once, rows=rows+more, memory=peak, missing=missing, best_gflops=best/1e9, provenance=about))
