"""The kernel of `benchmarks/ntk.py` by neural-tangents, in an environment of its own (no PyTorch).

    python ntk_rival.py in.npz full|trace

Writes out.npy beside the file, then prints the fastest implementation and the time of one call of each. After that it
computes once a line read, by the implementation that the line names, and prints the seconds.
"""
import json, sys, time
from pathlib import Path
import jax, jax.numpy as jnp, neural_tangents as nt, numpy as np
from jax._src import source_info_util
from jax.interpreters import ad

# where the fastest implementation looks for them; moved in this JAX
for name, thing in dict(source_info_util=source_info_util, config=jax.config).items():
    if not hasattr(ad, name): setattr(ad, name, thing)

def conv(x, w, b):
    return jax.lax.conv_general_dilated(x, w, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')) + b

def net(p, x):
    h = jax.nn.relu(conv(x, *p[0]))
    h = jax.nn.relu(conv(h, *p[1]))
    return h.reshape(len(x), -1) @ p[2][0] + p[2][1]

def load(file):
    "Weights and images, from PyTorch's order (channels first) to JAX's (channels last)."
    z = np.load(file, allow_pickle=False)
    first, second = ((z[f'w{i}'].transpose(2, 3, 1, 0), z[f'b{i}']) for i in (1, 2))
    last = z['w3'].reshape(-1, 32, 12, 12).transpose(2, 3, 1, 0).reshape(32*12*12, -1), z['b3']
    return jax.tree_util.tree_map(jnp.asarray, ([first, second, last], z['x'].transpose(0, 2, 3, 1)))

def seconds(f):
    start = time.perf_counter()
    jax.block_until_ready(f())
    return time.perf_counter()-start

def implementations(p, x, kind):
    "Name → compiled step."
    how = nt.NtkImplementation
    axes = () if kind == 'full' else (-1,)
    def step(o):
        kernel = jax.jit(nt.empirical_ntk_fn(net, trace_axes=axes, vmap_axes=0, implementation=o))
        return lambda: kernel(x, None, p)
    return {o.name: step(o) for o in (how.JACOBIAN_CONTRACTION, how.NTK_VECTOR_PRODUCTS, how.STRUCTURED_DERIVATIVES)}

def main(file, kind):
    steps = implementations(*load(file), kind)
    for f in steps.values(): f()                                     # compiles
    once = {o: seconds(f) for o, f in steps.items()}
    best = min(once, key=once.get)
    np.save(Path(file).with_name('out.npy'), np.asarray(steps[best]()))
    print(json.dumps(dict(best=best.lower(), once={o.lower(): t for o, t in once.items()})), flush=True)
    for line in sys.stdin: print(json.dumps(seconds(steps[line.strip().upper()])), flush=True)

if __name__ == '__main__': main(*sys.argv[1:])
