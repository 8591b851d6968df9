"""How fast are the tangent kernels, beside the torch.func tutorial's and neural-tangents'?

    python benchmarks/ntk.py                       # about two minutes
    python benchmarks/ntk.py --quick               # tiny sizes, seconds: shows that all runs, its numbers mean nothing
    python benchmarks/ntk.py --json out.json       # also writes the rows, and where they come from, as JSON
    python benchmarks/ntk.py --nt_python VENV/bin/python   # with neural-tangents, from an environment of its own

neural-tangents 0.6.5 needs old versions, so it does not fit into this package's own environment:

    python -m venv VENV
    VENV/bin/pip install neural-tangents==0.6.5 jax==0.4.30 jaxlib==0.4.30 tf2jax==0.3.6 'numpy<2' 'scipy<1.14'

The network: two 3×3 convolutions of 32 channels without padding, ReLU after each, flatten, one linear layer to 10
outputs (the tutorial's network with one convolution less), on 16×16×3 inputs. The tutorial's way is vmap(jacrev) and an
einsum a parameter; as ours, it computes the features of x1 once when x2 is x1. Its features of 512 images take
1.1 GiB, and are not chunked: that would not make it faster. neural-tangents is compiled, in its own preferred channel
order, with its default implementation (Jacobian contraction) and with its fastest (structured derivatives), which fails
as published with JAX 0.4.30: two names that moved are put back so that it runs.

The floor. `ntk_cost` counts the multiply-adds of each method, layer by layer; of ours, no run can be faster than twice
that many operations at the best float32 rate of a matrix product, measured here too; "of best" is that share.

How it is measured. First every kernel is held against the float64 one. Then the rows take turns, round after round, one
untimed call before the timed ones, nothing in the background. A time is a median over rounds, and so is a ratio: of two
rows in one round. Peak memory is that of a fresh process, beyond what it held before and beyond the kernel itself.
"""
import json as jsonlib, os, resource, subprocess, sys, tempfile, time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
import numpy as np, torch
from fastcore.script import call_parse
from torch import nn
from torch.func import functional_call, jacrev, vmap
from ensemble_kd.core import generator, table
from ensemble_kd.model import matmul_t
from ensemble_kd.ntk import empirical_ntk, ntk_cost
from ensemble_kd.resnet import seeded
from ensemble_kd.runs import one_line_errors, provenance, write_json

SIDE = 2048    # of the matrix products
IMPLEMENTATIONS = dict(jacobian_contraction='jacobian, its default', structured_derivatives='structured, mended')

def layers():
    return nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(),
                         nn.Linear(32*12*12, 10))

def network(): return seeded(layers, 0)

def images(n): return torch.randn(n, 3, 16, 16, generator=generator(1))

# --- the rivals

def tutorial(net, x, kind):
    "pytorch.org/tutorials/intermediate/neural_tangent_kernels: Jacobian contraction, with x2 = x1."
    params = {k: v.detach() for k, v in net.named_parameters()}
    def one(params, x): return functional_call(net, params, (x[None],))[0]
    jac = [j.flatten(2) for j in vmap(jacrev(one), (None, 0))(params, x).values()]
    if kind == 'full': return torch.stack([torch.einsum('Naf,Mbf->NMab', j, j) for j in jac]).sum(0)
    return torch.stack([torch.einsum('Naf,Maf->NM', j, j) for j in jac]).sum(0) / jac[0].shape[1]

class Rival:
    "neural-tangents in a process of its own, which computes when told to and tells how long it took."
    def __init__(self, python, net, x, kind):
        self.dir = tempfile.TemporaryDirectory()
        file = Path(self.dir.name)/'in.npz'
        weights = zip(('w1', 'b1', 'w2', 'b2', 'w3', 'b3'), net.parameters())
        np.savez(file, x=x.numpy(), **{k: p.detach().numpy() for k, p in weights})
        command = [python, Path(__file__).with_name('ntk_rival.py'), file, kind]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.process = subprocess.Popen(command, text=True, env=self.environment(), **pipes)
        self.about = self.answer()
        self.kernel = torch.from_numpy(np.load(file.with_name('out.npy'), allow_pickle=False))
    def environment(self):
        "As many threads as PyTorch has; none of this environment's modules."
        n = torch.get_num_threads()
        flags = '' if n > 1 else '--xla_cpu_multi_thread_eigen=false'
        env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
        return env | dict(XLA_FLAGS=flags, NPROC=str(n), JAX_PLATFORMS='cpu')
    def answer(self):
        line = self.process.stdout.readline()
        if line: return jsonlib.loads(line)
        raise ValueError(f'neural-tangents stopped with status {self.process.wait()}: is it installed there? '
                         'See the head of this file')
    def seconds(self, how):
        self.process.stdin.write(f'{how}\n')
        self.process.stdin.flush()
        return self.answer()
    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.dir.cleanup()

# --- checking and timing

def check(name, K, right):
    "Raise `ValueError` unless a kernel is right."
    error = ((K.double()-right).norm() / right.norm()).item()
    if error < 1e-4: return
    raise ValueError(f'{name}: the relative error of the kernel is {error:.1e}, expected < 1e-4; nothing was timed')

def timed(f):
    "Seconds of a call; a step that measures itself returns its own."
    start = time.perf_counter()
    own = f()
    return own if isinstance(own, float) else time.perf_counter()-start

def take_turns(steps, rounds):
    "Name → seconds of each round."
    for f in steps.values(): f()
    times = {name: [] for name in steps}
    for _ in range(rounds):
        for name, f in steps.items(): times[name].append(timed(f))
    return times

def products():
    "Both ways of a matrix product, as steps."
    a, b, out = torch.randn(3, SIDE, SIDE)
    return {'product mm': lambda: torch.mm(a, b, out=out), 'product oneDNN': lambda: matmul_t(a, b)}

def peak_mib(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**(20 if sys.platform == 'darwin' else 10)

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

def exact_kernel(kind, n):
    "The kernel in float64, of which a part is held against the tutorial's."
    net, x, small = network().double(), images(n).double(), 8
    right = empirical_ntk(net, x, kind=kind, method='jacobian')
    check('the float64 kernel', right[:small,:small], tutorial(net, x[:small], kind))
    return right

def contenders(kind, n, rival):
    "Name → step, each checked against the float64 kernel; ours is the first."
    net, x, right = network(), images(n), exact_kernel(kind, n)
    ours, theirs = partial(empirical_ntk, net, x, kind=kind), partial(tutorial, net, x, kind)
    check('ours', ours(), right)
    check("the tutorial's", theirs(), right)
    if rival: check('neural-tangents', rival.kernel, right)
    steps = {f'{kind} {n}: ours': ours, f'{kind} {n}: torch.func tutorial': theirs}
    others = IMPLEMENTATIONS.items() if rival else ()
    return steps | {f'{kind} {n}: neural-tangents ({name})': partial(rival.seconds, how) for how, name in others}

def compared(times, cost, best, targets):
    "Rows of one kernel, from seconds in each round and multiply-adds of the methods."
    first = next(iter(times))
    def row(name, target):
        ratio = median(b/a for a, b in zip(times[first], times[name]))
        seconds = median(times[name])
        r = dict(name=name, ms=1e3*seconds, ratio=ratio, target=None, met=None)
        if target: r |= dict(target=f'≥ {target}', met=ratio >= target)
        if 'neural' in name: return r
        ops = 2*cost['layer' if name == first else 'jacobian']
        return r | dict(gflop=ops/1e9, of_best=ops/seconds/best)
    return [row(name, target) for name, target in zip(times, (None, *targets))]

def compare(kind, n, rounds, nt_python, targets):
    "Rows of one kernel, the best rate of a matrix product, and neural-tangents' first times."
    with ExitStack() as last:
        rival = Rival(nt_python, network(), images(n), kind) if nt_python else None
        if rival: last.callback(rival.close)
        times = take_turns(contenders(kind, n, rival) | products(), rounds)
    product_s = [median(times.pop(o)) for o in list(times) if o.startswith('product')]
    best = 2*SIDE**3 / min(product_s)
    rows = compared(times, ntk_cost(network(), images(n), kind=kind), best, targets)
    return rows, best, rival and rival.about['once']

def cells(r):
    "One line of the table."
    met = {None: '', True: 'yes', False: 'no'}[r['met']]
    work = [f"{r['gflop']:.2f}", f"{r['of_best']:.1%}"] if 'gflop' in r else ['', '']
    return [r['name'], f"{r['ms']:.1f}", *work, f"{r['ratio']:.2f}", r['target'] or '', met]

def printed(rows, best, missing):
    speed = table(['', 'ms', 'GFLOP', 'of best', '× ours', 'target', 'met'], [cells(r) for r in rows])
    rate = f'\nbest rate of a matrix product: {best/1e9:.0f} GFLOP/s'
    return '\n'.join([speed, rate] + ([missing] if missing else []))

def peak_row(n, best, allowed=512):
    "Memory and time of a kernel too large for its features."
    mib, seconds = in_child(memory, n, allowed)
    ops = 2*ntk_cost(network(), images(n), kind='trace')['layer']
    return dict(name=f'trace {n}: peak memory beyond the kernel, of {allowed} MiB allowed', mib=mib, seconds=seconds,
                gflop=ops/1e9, of_best=ops/seconds/best, target=f'≤ {allowed}', met=mib <= allowed)

def peak_line(r):
    met = 'met' if r['met'] else 'not met'
    return (f"\n{r['name']}: {r['mib']:.0f} MiB, {met}; "
            f"{r['seconds']:.1f} s for {r['gflop']:.0f} GFLOP, {r['of_best']:.1%} of the best rate")

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
    rows, best, once = compare('full', full, rounds, nt_python, (1.5, 4., 4.))
    more, *_ = compare('trace', trace, max(3, rounds//2), None, (3.,))
    peak = peak_row(many, best)
    config = dict(network='conv 3-32, conv 32-32, linear 4608-10', input=[3, 16, 16], rounds=rounds)
    about = provenance(config | dict(threads=torch.get_num_threads()), 0, wall_s=time.monotonic()-start)
    print(f"{about['device']}; {torch.get_num_threads()} threads; medians over {rounds} rounds\n")
    print(printed(rows + more, best, missing))
    print(peak_line(peak))
    if once:
        times = ', '.join(f'{o} {s:.3f}' for o, s in once.items())
        print(f'neural-tangents, one call of each implementation (seconds): {times}')
    found = dict(neural_tangents_once=once, rows=rows + more, memory=peak, missing=missing, best_gflops=best/1e9)
    if json: write_json(json, found | dict(provenance=about))
