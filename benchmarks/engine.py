"""How fast is fused training, beside the same step done in other ways?

    python benchmarks/engine.py                  # ten members of 60 neurons, 400 inputs of 16 × 600; a few minutes
    python benchmarks/engine.py --quick          # a tiny shape, seconds: shows that all runs, its numbers mean nothing
    python benchmarks/engine.py --json out.json  # also writes the rows, and where they come from, as JSON

The floor. A step of full-batch gradient descent needs the pre-activations of all members, 2·N·P·d·L·k·m operations,
and the gradient of their weights, as many again: 4·N·P·d·L·k·m, all in matrix products. No step can be faster than that
many operations at the best float32 rate of a matrix product, measured here too, by torch.mm and by oneDNN; "of best" is
the share of the better of the two that a row reaches.

How it is measured. Every row does the same step, and its gradient is first held against float64 autograd. The rows take
turns, round after round, one untimed call before the timed ones, nothing in the background. A time is a median over
rounds, and so is a ratio: of two rows in one round, so that a machine that slows down slows both. Keep the machine
otherwise idle. PyTorch and JAX use the same number of threads, all by default; OMP_NUM_THREADS sets it. JAX is
optional: pip install 'ensemble_kd[bench]'.
"""
import os, resource, sys, time, warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import median
import torch
from fastcore.script import call_parse
from torch.nn import functional as nnf
from ensemble_kd.core import generator, table
from ensemble_kd.data import MultiView
from ensemble_kd.ensemble import view_errors
from ensemble_kd.model import PatchCNN, init_weights, matmul_t, patch_logits
from ensemble_kd.runs import one_line_errors, provenance, write_json
from ensemble_kd.train import cross_entropy, loss_and_grad

LR = .1      # every row steps by LR · gradient
SIGMA0 = .5  # of the weights: pre-activations fall on all three pieces of the smoothed ReLU (q=4, ϱ=1)
MANY = 64    # members, to compare the cost of one with

@dataclass(frozen=True)
class Sizes:
    "What is measured."
    dist:MultiView        # the data
    n:int                 # training inputs, N
    products:tuple        # sides of the matrix products
    least:float           # seconds of each turn
    tests:tuple           # test samples whose memory is compared
    drawn:int             # samples of 16 × 800 that are drawn
    members:int=10        # L
    m:int=6               # neurons a class

FULL = Sizes(MultiView(k=10, P=16, d=600), 400, (1024, 2048, 4096), .3, (20_000, 80_000), 10_000)
QUICK = Sizes(MultiView(k=10, P=16, d=160, sigma_p=.095), 200, (256, 512), .02, (2_000, 8_000), 1_000)

def weights(sizes, members): return init_weights(range(members), sizes.dist.k, sizes.m, sizes.dist.d, SIGMA0)

# --- one step of gradient descent: each function returns one that does a step and gives its gradient, (L, k, m, d)

def fused(x, y, weight, compiled=False):
    w, objective = weight.clone(), cross_entropy(y, weight.shape[1])
    def step():
        grad = loss_and_grad(w, x, objective, compiled=compiled)[2]
        w.sub_(grad, alpha=LR)
        return grad
    return step

def modules(x, y, weight):
    members = [PatchCNN(*weight.shape[1:]) for _ in weight]
    for o, w in zip(members, weight): o.weight.data.copy_(w[None])
    optimisers = [torch.optim.SGD(o.parameters(), LR) for o in members]
    def step():
        for o, opt in zip(members, optimisers):
            opt.zero_grad()
            nnf.cross_entropy(o(x), y).backward()
            opt.step()
        return torch.cat([o.weight.grad for o in members])
    return step

def vmapped(x, y, weight):
    w = weight.clone()
    def loss(w): return nnf.cross_entropy(patch_logits(w[None], x)[0], y)
    grads = torch.func.vmap(torch.func.grad(loss))
    def step():
        grad = grads(w)
        w.sub_(grad, alpha=LR)
        return grad
    return step

def jitted(x, y, weight):
    os.environ['NPROC'] = str(torch.get_num_threads())  # the size of XLA's thread pool, read when it looks for devices
    import jax, jax.numpy as jnp
    w, x, y = (jax.device_put(o.numpy(), jax.devices('cpu')[0]) for o in (weight, x, y))
    def loss(w, x, y):
        flat = x.reshape(-1, x.shape[-1]) @ w.reshape(-1, w.shape[-1]).T
        z = flat.reshape(*x.shape[:2], *w.shape[:2])
        F = jnp.where(z < 1, jnp.clip(z, 0, 1)**4 / 4, z-.75).sum((1, 3))
        return -jnp.take_along_axis(jax.nn.log_softmax(F), y[:, None], 1).mean()
    @jax.jit
    def update(w, x, y):
        grad = jax.vmap(jax.grad(loss), (0, None, None))(w, x, y)
        return w - LR*grad, grad
    def step():
        nonlocal w
        w, grad = jax.block_until_ready(update(w, x, y))
        return grad
    return step

def product(n, onednn):
    a, b, out = torch.randn(3, n, n)
    return (lambda: matmul_t(a, b)) if onednn else (lambda: torch.mm(a, b, out=out))

# --- checking and timing

def reference(x, y, weight):
    "The gradient by autograd in float64, a member at a time."
    def one(w):
        w = w[None].double().requires_grad_()
        return torch.autograd.grad(nnf.cross_entropy(patch_logits(w, x.double())[0], y), w)[0]
    return torch.cat([one(w) for w in weight])

def check(name, grad, right):
    "Raise `ValueError` unless the gradients of the first members are right."
    got = (grad if torch.is_tensor(grad) else torch.tensor(grad.tolist()))[:len(right)].double()
    off, size = ((o.flatten(1).norm(dim=1)) for o in (got-right, right))
    error = (off/size).max().item()
    if error < 1e-4: return
    raise ValueError(f'{name}: the relative error of the gradient is {error:.1e}, expected < 1e-4; nothing was timed')

def contenders(x, y, weight, many):
    "Name → step, each checked; name → why it cannot run here; the fused row that the others are held against."
    right, steps, missing = reference(x, y, weight), {}, {}
    def add(name, make, *args):
        step = make(x, y, *args)
        check(name, step(), right)
        steps[name] = step
    add('fused, eager', fused, weight)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        add('fused, compiled', fused, weight, True)
    failed = [str(o.message) for o in caught if 'torch.compile does not work' in str(o.message)]
    if failed:
        missing['fused, compiled'] = failed[0]
        del steps['fused, compiled']
    add(f'fused, L={MANY}', fused, many, not failed)
    add('modules, one after another', modules, weight)
    add('torch.func vmap + grad', vmapped, weight)
    try: add('JAX jit + vmap + grad', jitted, weight)
    except ImportError: missing['JAX jit + vmap + grad'] = "needs JAX: pip install 'ensemble_kd[bench]'"
    return steps, missing, 'fused, eager' if failed else 'fused, compiled'

def turn(step, least):
    "Seconds a call: one untimed, then as many as fill `least` seconds."
    step()
    n, start = 0, time.perf_counter()
    while not n or time.perf_counter()-start < least:
        step()
        n += 1
    return (time.perf_counter()-start) / n

def take_turns(steps, rounds, least):
    "Name → seconds a call in each round."
    times = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items(): times[name].append(turn(step, least))
    return times

# --- streaming evaluation and data, which have no rival

def peak_mib(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**(20 if sys.platform == 'darwin' else 10)

def streamed_mib(sizes, n):
    "By how much testing on n samples raises the peak memory of this process."
    weight, before = weights(sizes, sizes.members), peak_mib()
    view_errors(weight, sizes.dist, generator(0), n)
    return peak_mib() - before

def in_child(f, *args):
    "f(*args) in a fresh process, so that its peak is its own (a spawned one would inherit its parent's)."
    with ProcessPoolExecutor(1, mp_context=get_context('forkserver')) as ex: return ex.submit(f, *args).result()

def data_seconds(samples, rounds):
    dist, g = MultiView(P=16, d=800), generator(0)
    return median(turn(lambda: dist.sample(samples, g), 0) for _ in range(rounds))

# --- the tables

TARGETS = {f'fused, L={MANY}': ('≤', 1.), 'modules, one after another': ('≥', 2.5), 'torch.func vmap + grad': ('≥', 2.),
           'JAX jit + vmap + grad': ('≥', 1.2)}

def judged(value, target):
    "The columns target and met; target: None or (sign, bound)."
    if target is None: return dict(target=None, met=None)
    sign, bound = target
    return dict(target=f'{sign} {bound}', met=value >= bound if sign == '≥' else value <= bound)

def speed_rows(ops, times, ours):
    "One row a contender, from the operations of a step and its seconds in each round."
    rate = {name: [ops[name]/t for t in ts] for name, ts in times.items()}
    products = [o for o in rate if o.startswith('matrix')]
    best = max(products, key=lambda o: median(rate[o]))
    def share(a, b): return median(u/v for u, v in zip(rate[a], rate[b]))
    def row(o):
        r = dict(name=o, ms=1e3*median(times[o]), gflops=median(rate[o])/1e9, of_best=share(o, best))
        r |= dict(to_fused=None if o in products else share(ours, o))
        if o == ours: return r | judged(r['of_best'], ('≥', .75))
        return r | judged(r['to_fused'], TARGETS.get(o))
    return [row(o) for o in times]

def other_rows(tests, memory, samples, seconds):
    growth, (few, many) = memory[1]/memory[0], tests
    name = f'peak memory of testing on {many:,} samples ({memory[1]:.0f} MiB) against {few:,} ({memory[0]:.0f} MiB)'
    return [dict(name=name, value=growth) | judged(growth, ('≤', 1.2)),
            dict(name=f'seconds to draw {samples:,} samples of 16 × 800', value=seconds) | judged(seconds, ('≤', 2.))]

def end(r):
    "The last two columns of a row: the target and whether it was met."
    return [r['target'] or '', {None: '', True: 'yes', False: 'no'}[r['met']]]

def cells(r):
    ratio = '' if r['to_fused'] is None else f"{r['to_fused']:.2f}"
    return [r['name'], f"{r['ms']:.2f}", f"{r['gflops']:.1f}", f"{r['of_best']:.1%}", ratio, *end(r)]

def printed(rows, missing, others, fused):
    speed = table(['', 'ms', 'GFLOP/s', 'of best', '× fused', 'target', 'met'], [cells(r) for r in rows])
    note = f'× fused: time a member, over that of "{fused}". Targets: of best for that row, × fused for the rest.'
    rest = table(['', 'measured', 'target', 'met'], [[r['name'], f"{r['value']:.2f}", *end(r)] for r in others])
    lacks = [f'{name}: {why}' for name, why in missing.items()]
    return '\n'.join([speed, *lacks, '', note, '', rest])

def everything(sizes, rounds):
    "All measurements: the rows, what could not run, and the operations of the fused step."
    memory = [in_child(streamed_mib, sizes, n) for n in sizes.tests]
    seconds = data_seconds(sizes.drawn, min(rounds, 3))
    data = sizes.dist.sample(sizes.n, generator(0))
    weight, many = weights(sizes, sizes.members), weights(sizes, MANY)
    steps, missing, ours = contenders(data.x, data.y, weight, many)
    ops = {o: 4 * data.x.shape[:2].numel() * weight.numel() for o in steps}
    ops[f'fused, L={MANY}'] *= MANY/sizes.members
    kinds = [(n, how) for n in sizes.products for how in ('product', 'oneDNN')]
    ops |= {f'matrix {how}, {n}': 2*n**3 for n, how in kinds}
    steps = {f'matrix {how}, {n}': product(n, how == 'oneDNN') for n, how in kinds} | steps
    rows = speed_rows(ops, take_turns(steps, rounds, sizes.least), ours)
    others = other_rows(sizes.tests, memory, sizes.drawn, seconds)
    return dict(rows=rows, missing=missing, others=others, fused=ours), ops[ours]

@call_parse
@one_line_errors
def main(rounds:int=11,     # turns of each row
         quick:bool=False,  # a tiny shape, to see that everything runs
         json:str=None,     # also write the rows here
        ):
    "Measure the training engine against the floor, autograd, torch.func and JAX, side by side."
    start, sizes = time.monotonic(), QUICK if quick else FULL
    found, floor = everything(sizes, rounds)
    shape = dict(N=sizes.n, L=sizes.members, m=sizes.m, P=sizes.dist.P, d=sizes.dist.d, k=sizes.dist.k)
    config = dict(shape=shape, floor_ops=floor, rounds=rounds, threads=torch.get_num_threads())
    about = provenance(config, 0, wall_s=time.monotonic()-start)
    print(f"{about['device']}; {shape}; floor {floor/1e9:.2f} GFLOP a step; medians over {rounds} rounds\n")
    print(printed(**found))
    if json: write_json(json, found | dict(provenance=about))
