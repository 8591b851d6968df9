"""How fast are batches of CIFAR made, how fast do the small networks train, and does one wait for the other?

    python benchmarks/images.py                            # a few minutes on two cores
    python benchmarks/images.py --quick                    # seconds: shows that all runs, its numbers mean nothing
    python benchmarks/images.py --json results/images.json # also writes the rows, and where they come from, as JSON

Loaders. Every row makes normalised float32 batches from the same bytes, with crops and mirroring: `batches` of this
package, and torchvision's transforms (RandomCrop with reflection, RandomHorizontalFlip, ToTensor, Normalize) on PIL
images in a DataLoader, without workers and with one per core. Networks: forward and backward pass on a batch of 100
that lies ready. Rows take turns, round after round; a rate is the median over rounds, and so is a ratio, of two rows
in one round. Members: the experiment of chapter `resnet`, with real CIFAR-10 and validation images; skipped where
CIFAR-10 is not at hand. The loader's share of a member's time is measured while it trains. Keep the machine idle.
"""
import os, time
from functools import partial
from statistics import median
import torch
from fastcore.script import call_parse
from torch.nn import functional as nnf
from ensemble_kd.images import AugmentationPlan, STATS, balanced_subset, batches, load_images, split_validation
from ensemble_kd.images import textures
from ensemble_kd.resnet import seeded, small_net, wide_resnet
from ensemble_kd.runs import one_line_errors, provenance, write_json

NETS = {'small_net': small_net, 'WideResNet-10-1': partial(wide_resnet, '10-1')}
RECIPE = dict(images=3000, validation=5000, epochs=20, batch=100, lr=.2, momentum=.9, weight_decay=5e-4, warmup=.2,
              dtype='bfloat16')

# --- loaders

class Pictures(torch.utils.data.Dataset):
    "PIL images through torchvision's transforms, one by one."
    def __init__(self, x, y):
        from torchvision import transforms as T
        self.x, self.y = x.permute(0, 2, 3, 1).numpy(), y.tolist()
        self.change = T.Compose([T.RandomCrop(32, 4, padding_mode='reflect'), T.RandomHorizontalFlip(),
                                 T.ToTensor(), T.Normalize(*STATS['cifar10'])])
    def __len__(self): return len(self.x)
    def __getitem__(self, i):
        from PIL import Image
        return self.change(Image.fromarray(self.x[i])), self.y[i]

def torchvision_loader(x, y, workers):
    kept = dict(num_workers=workers, persistent_workers=workers > 0)
    return torch.utils.data.DataLoader(Pictures(x, y), batch_size=100, shuffle=True, **kept)

def rate(loader, n):
    "Images a second of one pass."
    start = time.perf_counter()
    for _ in loader(): pass
    return n / (time.perf_counter()-start)

def loaders(n, rounds):
    data = textures(n, 1)
    x, y = data.x_train, data.y_train
    rows = {'batches': partial(batches, x, y, 100, plan=AugmentationPlan(n)),
            'batches, no augmentation': partial(batches, x, y, 100)}
    for w in (0, os.cpu_count()):
        loader = torchvision_loader(x, y, w)
        rows[f'torchvision, DataLoader, {w} workers'] = partial(iter, loader)
    for make in rows.values(): rate(make, n)
    rates = [{k: rate(make, n) for k, make in rows.items()} for _ in range(rounds)]
    ratio = {k: median(r['batches']/r[k] for r in rates) for k in rows}
    return [dict(loader=k, images_per_s=median(r[k] for r in rates), batches_is_faster_by=ratio[k]) for k in rows]

# --- networks

def loss_of(net, x, y, dtype):
    with torch.autocast('cpu', torch.bfloat16, enabled=dtype == 'bfloat16'): z = net(x).float()
    return nnf.cross_entropy(z, y)

def net_step(net, channels_last, dtype):
    "A forward and backward pass on a batch that lies ready."
    form = torch.channels_last if channels_last else torch.contiguous_format
    net, x = (o.to(memory_format=form) for o in (seeded(NETS[net], 0), torch.randn(100, 3, 32, 32)))
    y = torch.arange(100) % 10
    return lambda: loss_of(net, x, y, dtype).backward()

def speed(step, seconds):
    "Images a second of steps with 100 images."
    n, start = 0, time.perf_counter()
    while time.perf_counter()-start < seconds:
        step()
        n += 100
    return n / (time.perf_counter()-start)

def nets(rounds, seconds):
    formats = [(cl, d) for cl in (False, True) for d in ('float32', 'bfloat16')]
    rows = [dict(net=k, channels_last=cl, dtype=d) for k in NETS for cl, d in formats]
    steps = [net_step(**r) for r in rows]
    for step in steps: step()
    rates = [[speed(step, seconds) for step in steps] for _ in range(rounds)]
    return [r | dict(images_per_s=median(o)) for r, o in zip(rows, zip(*rates))]

# --- members

def timed(made, waited):
    "The same batches; seconds spent waiting for each are noted in `waited`."
    while True:
        start = time.perf_counter()
        one = next(made, None)
        waited.append(time.perf_counter()-start)
        if one is None: return
        yield one

def member(make, seed, x, y, epochs):
    "Train one member; the network, its seconds, and the share of them spent waiting for batches."
    net, r = seeded(make, seed).to(memory_format=torch.channels_last), RECIPE
    how = dict(lr=r['lr'], momentum=r['momentum'], weight_decay=r['weight_decay'], nesterov=True)
    opt, steps = torch.optim.SGD(net.parameters(), **how), epochs * (len(x)//r['batch'])
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, r['lr'], total_steps=steps, pct_start=r['warmup'])
    start, waited = time.perf_counter(), []
    for epoch in range(epochs):
        for xb, yb, _ in timed(batches(x, y, r['batch'], seed=seed, epoch=epoch), waited):
            loss = loss_of(net, xb, yb, r['dtype'])
            opt.zero_grad()
            loss.backward()
            opt.step(); schedule.step()
    seconds = time.perf_counter()-start
    return net.eval(), seconds, sum(waited)/seconds

@torch.no_grad()
def accuracy(net, x, y):
    "In percent."
    with torch.autocast('cpu', torch.bfloat16):
        hits = [net(xb).argmax(1) == yb for xb, yb, _ in batches(x, y, 500, shuffle=False, drop_last=False)]
    return 100*torch.cat(hits).double().mean().item()

def members(seeds, epochs):
    try: data = load_images('cifar10', download=False)
    except FileNotFoundError as e:
        print(f'members skipped: {e}')
        return []
    train, val = split_validation(data.y_train, RECIPE['validation'], seed=0)
    train = train[balanced_subset(data.y_train[train], RECIPE['images'], seed=0)]
    parts = [(data.x_train[o], data.y_train[o]) for o in (train, val)]
    out = []
    for name, make in NETS.items():
        made = [member(make, seed, *parts[0], epochs) for seed in range(seeds)]
        scores = [[accuracy(net, *part) for net, _, _ in made] for part in parts]
        _, seconds, waiting = zip(*made)
        times = dict(seconds=median(seconds), waiting_share=median(waiting))
        out.append(dict(net=name) | times | dict(train=scores[0], val=scores[1]))
    return out

def shown(row): return '  '.join(f'{k} {v:,.3g}' if isinstance(v, float) else f'{k} {v}' for k, v in row.items())

@call_parse
@one_line_errors
def main(json:str=None,    # file for the rows
         quick:bool=False, # tiny sizes
        ):
    "Measure loaders, networks and members."
    start = time.perf_counter()
    sizes = dict(loaders=(500, 1), nets=(1, .05), members=(1, 1)) if quick else \
            dict(loaders=(5000, 3), nets=(3, .6), members=(2, RECIPE['epochs']))
    res = {f.__name__: f(*sizes[f.__name__]) for f in (loaders, nets, members)}
    for rows in res.values():
        for row in rows: print(shown(row))
    about = provenance(dict(quick=quick, recipe=RECIPE), 0, wall_s=time.perf_counter()-start)
    if json: write_json(json, res | dict(provenance=about))
