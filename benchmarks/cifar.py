"""How fast does a member train, beside a plain loop of the usual kind?

    python benchmarks/cifar.py                           # CPU: the small net
    python benchmarks/cifar.py --net 28-2 --device cuda  # GPU: bfloat16, compiled; the share of the matrix rate
    python benchmarks/cifar.py --net 28-2 --device cuda --airbench94  # and airbench to 94 % (pip install airbench)
    python benchmarks/cifar.py --json out.json           # also writes the rows, and where they come from
    python benchmarks/cifar.py --recipes --images 50000  # what pays on a CPU: accuracy and seconds of other recipes (hours)

Rows. "plain": DataLoader, torchvision transforms on PIL images, float32, channels first, no compilation. "ours": what
`ekd_cifar` does, on the same net and the same images, with crops and flips. The rows take turns, round after round; a
time is a median over rounds and a ratio is taken within a round. Keep the machine otherwise idle.

Several members at once (CPU only; on a GPU start workers with torchrun): one after another, all in one by vmap (grouped
convolutions; a net without running statistics, the same for both rows), and two processes of one thread each against
one of two.
"""
import subprocess, sys, time
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
import torch
from fastcore.script import call_parse
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as nnf
from torch.utils.data import DataLoader, Dataset
from ensemble_kd.cifar import GPU, LAPTOP, Preset, group_images, make_net
from ensemble_kd.ensemble import error_rate
from ensemble_kd.images import balanced_subset, load_images
from ensemble_kd.resnet import macs, seeded, small_net
from ensemble_kd.runs import check_device, device_name, one_line_errors, provenance, write_json
from ensemble_kd.inputs import ImageData
from ensemble_kd.trainer import Recipe, Trainer

# --- one member

class Usual(Dataset):
    "Images through PIL and torchvision, as in most scripts."
    def __init__(self, images):
        from torchvision import transforms as T
        self.f = T.Compose([T.ToPILImage(), T.RandomCrop(32, 4, padding_mode='reflect'), T.RandomHorizontalFlip(),
                            T.ToTensor(), T.Normalize(*images.stats)])
        self.x, self.y = images.x_train.cpu(), images.y_train.cpu().tolist()
    def __len__(self): return len(self.y)
    def __getitem__(self, i): return self.f(self.x[i]), self.y[i]

def plain(images, net, recipe, device, workers):
    "A function that trains for an epoch, as most scripts do."
    net = make_net(net, len(images.classes)).to(device).train()
    opt = torch.optim.SGD(net.parameters(), lr=recipe.lr, momentum=recipe.momentum, nesterov=True,
                          weight_decay=recipe.weight_decay)
    loader = DataLoader(Usual(images), recipe.batch, shuffle=True, drop_last=True, num_workers=workers,
                        pin_memory=device.type == 'cuda', persistent_workers=workers > 0)
    def epoch():
        for x, y in loader:
            x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
            loss = nnf.cross_entropy(net(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
        return loss.item()
    return epoch

def ours(images, net, recipe, device):
    "The same by `Trainer`."
    trainer = Trainer(partial(make_net, net, len(images.classes)), recipe, device)
    return partial(trainer.fit, ImageData(images), 0)

def seconds(f, device):
    def wait():
        if device.type == 'cuda': torch.cuda.synchronize(device)
    wait()
    start = time.perf_counter()
    f()
    wait()
    return time.perf_counter() - start

def matrix_rate(device, n=8192):
    "Measured bfloat16 operations a second of a matrix product."
    a, b = torch.randn(2, n, n, device=device, dtype=torch.bfloat16)
    a @ b
    return 2*n**3 / median(seconds(lambda: a @ b, device) for _ in range(10))

def contenders(images, net, device, batch, workers):
    "Name → a function that trains for an epoch."
    base = Recipe(epochs=1, batch=batch, lr=.05)
    recipes = dict(ours=replace(base, augment=True))
    if device.type == 'cuda':
        half = replace(base, **GPU)
        recipes |= {'ours, bfloat16': replace(half, compile=''), 'ours, bfloat16, compiled': half}
    else: recipes |= {'ours, no crops': base}
    mine = {k: ours(images, net, r, device) for k, r in recipes.items()}
    return dict(plain=plain(images, net, base, device, workers)) | mine

def compare(epochs, used, rounds, device):
    "Rows of functions that train on so many images, in turn."
    for f in epochs.values(): f()
    times = [{k: seconds(f, device) for k, f in epochs.items()} for _ in range(rounds)]
    def row(k):
        faster = median(t['plain']/t[k] for t in times)
        return dict(name=k, images_per_s=used/median(t[k] for t in times), over_plain=faster)
    return [row(k) for k in epochs]

# --- several members at once

def group_net(): return small_net(norm='group')

def group_nets(members): return [seeded(group_net, s) for s in range(members)]

def one_by_one(x, y, members):
    "A step of each member, one after another."
    nets = [o.to(memory_format=torch.channels_last) for o in group_nets(members)]
    opts = [torch.optim.SGD(o.parameters(), .01, momentum=.9) for o in nets]
    def step():
        for net, opt in zip(nets, opts):
            opt.zero_grad()
            nnf.cross_entropy(net(x), y).backward()
            opt.step()
    return step

def grouped(x, y, members):
    "The same step for all at once."
    nets = group_nets(members)
    state, _ = stack_module_state(nets)
    opt = torch.optim.SGD(state.values(), .01, momentum=.9)
    run = vmap(lambda p, x: functional_call(nets[0], p, (x,)), in_dims=(0, None))
    def step():
        opt.zero_grad()
        z = run(state, x).flatten(0, 1)
        loss = nnf.cross_entropy(z, y.repeat(members)) * members
        loss.backward()
        opt.step()
    return step

def batch_of(n=100): return torch.randn(n, 3, 32, 32), torch.arange(n) % 10

def rate(step, members, least):
    "Images of one member a second."
    step()
    n, start = 0, time.perf_counter()
    while not n or time.perf_counter()-start < least:
        step()
        n += 1
    return 100*members*n / (time.perf_counter()-start)

WORKER = '''
import sys, torch
sys.path.insert(0, sys.argv[1])
import cifar as b
torch.set_num_threads(int(sys.argv[2]))
x, y = b.batch_of()
step = b.one_by_one(x.to(memory_format=torch.channels_last), y, 1)
step()
print('ready', flush=True)
input()
print(b.rate(step, 1, float(sys.argv[3])))
'''

def processes(count, threads, least):
    "Images of one member a second, of all processes together."
    command = [sys.executable, '-c', WORKER, Path(__file__).parent.resolve(), threads, least]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ps = [subprocess.Popen([str(o) for o in command], **pipes) for _ in range(count)]
    for p in ps: p.stdout.readline()
    for p in ps:
        p.stdin.write('go\n')
        p.stdin.flush()
    return sum(float(p.communicate()[0]) for p in ps)

def several(members, rounds, least):
    "Images of one member a second, by way."
    x, y = batch_of()
    last = x.to(memory_format=torch.channels_last)
    ways = {'one after another': lambda: rate(one_by_one(last, y, members), members, least),
            'grouped (vmap)': lambda: rate(grouped(x, y, members), members, least),
            'one process, two threads': lambda: processes(1, 2, least),
            'two processes, one thread each': lambda: processes(2, 1, least)}
    got = [{k: f() for k, f in ways.items()} for _ in range(rounds)]
    return {k: median(o[k] for o in got) for k in ways}

# --- what pays in the recipe of `ekd_cifar --preset laptop`

class Growing(ImageData):
    "Images of 24 pixels a side in the first half of the training."
    def to(self, device): return Growing(self.images.to(device))
    def epoch(self, recipe, seed, epoch):
        for x, y, rows in super().epoch(recipe, seed, epoch):
            if 2*epoch < recipe.epochs: x = nnf.interpolate(x.float(), size=24, mode='bilinear', antialias=True).to(x)
            yield x, y, rows

BASE = replace(LAPTOP, precision='bfloat16')
VARIANTS = {'as it is': BASE, 'learning rate 0.2': replace(BASE, lr=.2), 'crops of 4 pixels': replace(BASE, pad=4),
            'batches of 125': replace(BASE, batch=125, lr=.2), 'batches of 500': replace(BASE, batch=500, lr=.8),
            'half as long': replace(BASE, epochs=4), 'twice as long': replace(BASE, epochs=16),
            'float32': replace(BASE, precision='float32'), 'compiled': replace(BASE, compile='default'),
            'small net': BASE, '24 pixels in the first half': BASE}

def recipe_row(name, images, device, seed):
    "A network of a variant, on 5,000 training images set aside: accuracy in %, seconds of processor time."
    recipe, some = VARIANTS[name], group_images(images, Preset(validate=True), 0, 0)
    data = (Growing if name.startswith('24') else ImageData)(some)
    trainer = Trainer(partial(make_net, 'small' if name == 'small net' else 'pairs', 10), recipe, device)
    start = time.process_time()
    try: trainer.fit(data, seed)
    except FloatingPointError as e: return print(f'  {name:28} {e}') or dict(name=name, accuracy=None)
    spent = time.process_time()-start
    wrong = error_rate(trainer.logits(data, 'test'), some.y_test.cpu()).item()
    print(f'  {name:28} {100*(1-wrong):6.2f} %  {spent:8.0f} s', flush=True)
    return dict(name=name, accuracy=100*(1-wrong), cpu_s=round(spent, 1), mmac=round(macs(trainer.nets[0])/1e6, 1))

# --- a GPU

def airbench(images, device):
    "Seconds to 94 % by airbench's own recipe, and by one member of `ekd_cifar --preset fast` (its accuracy beside it)."
    try: import airbench as ab
    except ImportError: raise ImportError('airbench is missing: pip install airbench') from None
    ab.warmup94()
    theirs = seconds(ab.train94, device)
    trainer = Trainer(partial(make_net, '28-2', 10), Recipe(epochs=30, batch=512, lr=.4, **GPU), device)
    few = replace(images, x_train=images.x_train[:2048], y_train=images.y_train[:2048])
    trainer.fit(ImageData(few), 0)                                              # compiles
    mine = seconds(partial(trainer.fit, ImageData(images), 0), device)
    wrong = error_rate(trainer.logits(ImageData(images), 'test'), images.y_test.cpu()).item()
    return dict(airbench94_s=theirs, ours_s=mine, ours_accuracy=100*(1-wrong))

def share_of_matrix_rate(net, images_per_s, device):
    "The best rate of a bfloat16 product, and the share of it that training reaches."
    best = matrix_rate(device)
    return dict(matrix_tflops=best/1e12, matrix_share=images_per_s*6*macs(make_net(net, 10))/best)

def on_gpu(data, net, fastest, device, airbench94):
    "What a GPU is compared with."
    out = share_of_matrix_rate(net, fastest, device)
    best, share = out['matrix_tflops'], out['matrix_share']
    print(f'  bfloat16 matrix product {best:.0f} TFLOPS; the last row reaches {share:.1%} of it')
    if not airbench94: return out
    out['airbench'] = airbench(data.to(device), device)
    print(' ', out['airbench'])
    return out

def on_cpu(rounds):
    "Ways to train several."
    found = several(4, rounds, 2.)
    for k, v in found.items(): print(f'  {k:31} {v:8,.0f} images/s (small net, group norm)')
    return dict(several=found)

@call_parse
@one_line_errors
def cifar(net:str='small',   # small, or a WideResNet's depth-width
          device:str='cpu',  # cpu or cuda
          dir:str=None,      # folder with cifar10.npz (default: ENSEMBLE_KD_DATA, else downloaded)
          images:int=2000,   # training images (GPU: 50000)
          batch:int=100,     # images a step (GPU: 512)
          rounds:int=3,      # of the rows, in turn
          workers:int=0,     # of the plain loop's DataLoader
          airbench94:bool=False, # also airbench (GPU)
          recipes:bool=False,# instead: variants of the laptop's recipe, on images set aside
          json:str=None,     # file for the rows
         ):
    "Training throughput of a member beside a plain loop; ways to train several."
    device, start = check_device(device), time.perf_counter()
    data = load_images('cifar10', dir)
    rows = balanced_subset(data.y_train, min(images, len(data.y_train)))
    some = replace(data, x_train=data.x_train[rows], y_train=data.y_train[rows]).to(device)
    if recipes:
        found = [recipe_row(name, some, device, 100) for name in VARIANTS]
        about = provenance(dict(images=len(rows)), 100, device, time.perf_counter()-start)
        return write_json(json, dict(rows=found, provenance=about)) if json else None
    epochs = contenders(some, net, device, batch, workers)
    found = compare(epochs, len(rows)//batch*batch, rounds, device)
    print(f'{net} on {device_name(device)}, {len(rows):,} images, batches of {batch}, median of {rounds} rounds')
    for r in found: print(f"  {r['name']:26} {r['images_per_s']:10,.0f} images/s  {r['over_plain']:6.2f} × plain")
    fastest = found[-1]['images_per_s']
    more = on_gpu(data, net, fastest, device, airbench94) if device.type == 'cuda' else on_cpu(rounds)
    config = dict(net=net, images=len(rows), batch=batch, rounds=rounds, workers=workers)
    about = provenance(config, 0, device, time.perf_counter()-start)
    if json: write_json(json, dict(rows=found) | more | dict(provenance=about))
