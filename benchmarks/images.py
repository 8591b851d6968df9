"""How fast are batches of CIFAR made, how fast do the small networks train, and does one wait for the other?

    python benchmarks/images.py                            # a few minutes on two cores
    python benchmarks/images.py --quick                    # seconds: shows that everything runs, its numbers mean nothing
    python benchmarks/images.py --json results/images.json # also writes the rows, and where they come from, as JSON

Loaders. Every row makes normalised float32 batches from the same bytes, with crops and mirroring: `batches` of this package, and
torchvision's transforms (RandomCrop with reflection, RandomHorizontalFlip, ToTensor, Normalize) on PIL images in a DataLoader,
without workers and with one per core. Networks: forward and backward pass on a batch of 100 that lies ready. Rows take turns,
round after round; a rate is the median over rounds, and so is a ratio, of two rows in one round. Members: the experiment of
chapter `resnet`, with real CIFAR-10 and validation images; skipped where CIFAR-10 is not at hand. The loader's share of a
member's time is measured while it trains. Keep the machine otherwise idle.
"""
import os, time
from statistics import median
import torch
from fastcore.script import call_parse
from torch.nn import functional as F
from ensemble_kd.claims import one_line_errors, provenance, write_json
from ensemble_kd.images import AugmentationPlan, STATS, balanced_subset, batches, load_images, split_validation, textures
from ensemble_kd.resnet import small_net, wide_resnet

NETS = {'small_net': small_net, 'WideResNet-10-1': lambda seed: wide_resnet('10-1', seed=seed)}
RECIPE = dict(images=3000, validation=5000, epochs=20, batch=100, lr=.2, momentum=.9, weight_decay=5e-4, warmup=.2, dtype='bfloat16')

def ours(x, y): return lambda: batches(x, y, 100, plan=AugmentationPlan(len(x)))

def torchvision_loader(x, y, workers):
    from PIL import Image
    from torchvision import transforms as T
    pics, labels = x.permute(0, 2, 3, 1).numpy(), y.tolist()
    change = T.Compose([T.RandomCrop(32, 4, padding_mode='reflect'), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(*STATS['cifar10'])])
    class Set(torch.utils.data.Dataset):
        def __len__(self): return len(pics)
        def __getitem__(self, i): return change(Image.fromarray(pics[i])), labels[i]
    return torch.utils.data.DataLoader(Set(), batch_size=100, shuffle=True, num_workers=workers, persistent_workers=workers > 0)

def rate(loader, n):
    t = time.perf_counter()
    for _ in loader(): pass
    return n / (time.perf_counter() - t)

def loaders(n, rounds):
    data = textures(n, 1); x, y = data.x_train, data.y_train
    rows = {'batches': ours(x, y), 'batches, no augmentation': lambda: batches(x, y, 100)}
    for w in (0, os.cpu_count()):
        loader = torchvision_loader(x, y, w)
        rows[f'torchvision, DataLoader, {w} workers'] = lambda loader=loader: loader
    for r in rows.values(): rate(r, n)
    rates = [{k: rate(r, n) for k, r in rows.items()} for _ in range(rounds)]
    return [dict(loader=k, images_per_s=median(r[k] for r in rates), batches_is_faster_by=median(r['batches'] / r[k] for r in rates)) for k in rows]

def net_step(make, channels_last, dtype):
    net, x, y = make(seed=0), torch.randn(100, 3, 32, 32), torch.arange(100) % 10
    if channels_last: net, x = (o.to(memory_format=torch.channels_last) for o in (net, x))
    def step():
        with torch.autocast('cpu', torch.bfloat16, enabled=dtype == 'bfloat16'): loss = F.cross_entropy(net(x).float(), y)
        loss.backward()
    return step

def speed(step, seconds):
    n, t = 0, time.perf_counter()
    while time.perf_counter() - t < seconds: step(); n += 1
    return 100 * n / (time.perf_counter() - t)

def nets(rounds, seconds):
    rows = [dict(net=k, channels_last=cl, dtype=d) for k in NETS for cl in (False, True) for d in ('float32', 'bfloat16')]
    steps = [net_step(NETS[r['net']], r['channels_last'], r['dtype']) for r in rows]
    for s in steps: s()
    rates = [[speed(s, seconds) for s in steps] for _ in range(rounds)]
    return [r | dict(images_per_s=median(o)) for r, o in zip(rows, zip(*rates))]

def member(make, seed, x, y, epochs):
    "Train one member; the network, its seconds, and the share of them spent waiting for batches."
    net, r = make(seed=seed).to(memory_format=torch.channels_last), RECIPE
    opt = torch.optim.SGD(net.parameters(), r['lr'], momentum=r['momentum'], nesterov=True, weight_decay=r['weight_decay'])
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, r['lr'], total_steps=epochs * (len(x)//r['batch']), pct_start=r['warmup'])
    start, waited = time.perf_counter(), 0
    for epoch in range(epochs):
        it = batches(x, y, r['batch'], seed=seed, epoch=epoch)
        while True:
            t = time.perf_counter(); b = next(it, None); waited += time.perf_counter() - t
            if b is None: break
            with torch.autocast('cpu', torch.bfloat16): loss = F.cross_entropy(net(b[0]).float(), b[1])
            opt.zero_grad(); loss.backward(); opt.step(); sched.step()
    seconds = time.perf_counter() - start
    return net.eval(), seconds, waited / seconds

@torch.no_grad()
def accuracy(net, x, y):
    with torch.autocast('cpu', torch.bfloat16):
        return 100 * torch.cat([net(xb).argmax(1) == yb for xb, yb, _ in batches(x, y, 500, shuffle=False, drop_last=False)]).float().mean().item()

def members(seeds, epochs):
    try: data = load_images('cifar10', download=False)
    except FileNotFoundError as e: print(f'members skipped: {e}'); return []
    train, val = split_validation(data.y_train, RECIPE['validation'], seed=0)
    train = train[balanced_subset(data.y_train[train], RECIPE['images'], seed=0)]
    (x, y), (xv, yv) = ((data.x_train[o], data.y_train[o]) for o in (train, val))
    out = []
    for name, make in NETS.items():
        runs = [(accuracy(net, x, y), accuracy(net, xv, yv), s, w) for net, s, w in (member(make, seed, x, y, epochs) for seed in range(seeds))]
        tr, va, s, w = map(list, zip(*runs))
        out.append(dict(net=name, seconds=median(s), waiting_share=median(w), train=tr, val=va))
    return out

@call_parse
@one_line_errors
def main(json:str=None,   # file for the rows
         quick:bool=False, # tiny sizes
        ):
    "Measure loaders, networks and members."
    start = time.perf_counter()
    res = dict(loaders=loaders(500 if quick else 5000, 1 if quick else 3), nets=nets(1 if quick else 3, .05 if quick else .6),
               members=members(1 if quick else 2, 1 if quick else RECIPE['epochs']))
    for rows in res.values():
        for r in rows: print('  '.join(f'{k} {v:,.3g}' if isinstance(v, float) else f'{k} {v}' for k, v in r.items()))
    if json: write_json(json, res | dict(provenance=provenance(dict(quick=quick, recipe=RECIPE), 0, wall_s=time.perf_counter() - start)))
