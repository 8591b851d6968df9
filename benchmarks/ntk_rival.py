"""The kernel of `benchmarks/ntk.py` by neural-tangents, in an environment of its own (no PyTorch): computes once a line read, by the implementation that the line names.

    python ntk_rival.py in.npz full|trace     # writes out.npy beside it; prints the fastest implementation and a first time of each, then seconds
"""
import json, sys, time
from pathlib import Path
import jax, jax.numpy as jnp, neural_tangents as nt, numpy as np
from jax._src import source_info_util
from jax.interpreters import ad
for name, thing in dict(source_info_util=source_info_util, config=jax.config).items():    # where its fastest implementation looks for them; moved in this JAX
    if not hasattr(ad, name): setattr(ad, name, thing)

def conv(x, w, b): return jax.lax.conv_general_dilated(x, w, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')) + b

def net(p, x):
    h = jax.nn.relu(conv(jax.nn.relu(conv(x, *p[0])), *p[1]))
    return h.reshape(len(x), -1) @ p[2][0] + p[2][1]

def load(file):
    "Weights and images, from PyTorch's order (channels first) to JAX's (channels last)."
    z = np.load(file, allow_pickle=False)
    last = z['w3'].reshape(-1, 32, 12, 12).transpose(2, 3, 1, 0).reshape(32*12*12, -1)
    p = [(z['w1'].transpose(2,3,1,0), z['b1']), (z['w2'].transpose(2,3,1,0), z['b2']), (last, z['b3'])]
    return jax.tree_util.tree_map(jnp.asarray, (p, z['x'].transpose(0,2,3,1)))

def seconds(f):
    start = time.perf_counter(); jax.block_until_ready(f())
    return time.perf_counter()-start

def main(file, kind):
    (p, x), steps = load(file), {}
    for how in (nt.NtkImplementation.JACOBIAN_CONTRACTION, nt.NtkImplementation.NTK_VECTOR_PRODUCTS, nt.NtkImplementation.STRUCTURED_DERIVATIVES):
        k = jax.jit(nt.empirical_ntk_fn(net, trace_axes=() if kind=='full' else (-1,), vmap_axes=0, implementation=how))
        steps[how.name] = lambda k=k: k(x, None, p)
    for f in steps.values(): seconds(f)
    took = {o: seconds(f) for o, f in steps.items()}
    best = min(took, key=took.get)
    np.save(Path(file).with_name('out.npy'), np.asarray(steps[best]()))
    print(json.dumps(dict(best=best.lower(), once={o.lower(): t for o, t in took.items()})), flush=True)
    for line in sys.stdin: print(json.dumps(seconds(steps[line.strip().upper()])), flush=True)

if __name__=='__main__': main(*sys.argv[1:])
