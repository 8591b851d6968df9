"""How fast does a member train, beside a plain loop of the usual kind?

    python benchmarks/cifar.py                                     # CPU: the small net
    python benchmarks/cifar.py --net 28-2 --device cuda            # GPU: bfloat16, compiled; share of the matrix rate
    python benchmarks/cifar.py --net 28-2 --device cuda --airbench94 # and the time of airbench to 94 % beside ours (pip install airbench)
    python benchmarks/cifar.py --json out.json                     # also writes the rows, and where they come from

Rows. "plain": DataLoader, torchvision transforms on PIL images, float32, channels first, no compilation. "ours": what
`ekd_cifar` does, on the same net and the same images, with crops and flips. The rows take turns, round after round; a time is a
median over rounds and a ratio is taken within a round. Keep the machine otherwise idle.

Several members at once (CPU only; on a GPU start workers with torchrun): one after another, all in one by vmap (grouped
convolutions; a net without running statistics, the same for both rows), and two processes of one thread each against one of two.
"""
import os, subprocess, sys, time
from dataclasses import replace
from statistics import median
import torch
from fastcore.script import call_parse
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from ensemble_kd.cifar import GPU, Recipe, Trainer, make_net
from ensemble_kd.claims import check_device, device_name, one_line_errors, provenance, write_json
from ensemble_kd.images import balanced_subset, load_images
from ensemble_kd.resnet import macs, small_net

class Usual(Dataset):
    "Images through PIL and torchvision, as in most scripts."
    def __init__(self, images):
        from torchvision import transforms as T
        mean, std = images.stats
        self.f = T.Compose([T.ToPILImage(), T.RandomCrop(32, 4, padding_mode='reflect'), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(mean, std)])
        self.x, self.y = images.x_train.cpu(), images.y_train.cpu().tolist()
    def __len__(self): return len(self.y)
    def __getitem__(self, i): return self.f(self.x[i]), self.y[i]

def plain(images, net, recipe, device, workers):
    "Returns a function that trains for an epoch."
    net = make_net(net, len(images.classes)).to(device).train()
    opt = torch.optim.SGD(net.parameters(), lr=recipe.lr, momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay)
    loader = DataLoader(Usual(images), recipe.batch, shuffle=True, drop_last=True, num_workers=workers, pin_memory=device.type == 'cuda', persistent_workers=workers > 0)
    def epoch():
        for x, y in loader:
            x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
            loss = F.cross_entropy(net(x), y)
            opt.zero_grad(); loss.backward(); opt.step()
        return loss.item()
    return epoch

def ours(images, net, recipe, device):
    t = Trainer(lambda: make_net(net, len(images.classes)), recipe, device)
    return lambda: t.fit(images, 0)

def seconds(f, device):
    if device.type == 'cuda': torch.cuda.synchronize(device)
    start = time.perf_counter(); f()
    if device.type == 'cuda': torch.cuda.synchronize(device)
    return time.perf_counter() - start

def matrix_rate(device, n=8192):
    "Measured bfloat16 operations a second of a matrix product."
    a, b = torch.randn(2, n, n, device=device, dtype=torch.bfloat16)
    a @ b
    return 2*n**3 / median(seconds(lambda: a @ b, device) for _ in range(10))

# --- several members at once

def one_by_one(x, y, members):
    nets = [small_net(norm='group', seed=s).to(memory_format=torch.channels_last) for s in range(members)]
    opts = [torch.optim.SGD(o.parameters(), .01, momentum=.9) for o in nets]
    def step():
        for net, opt in zip(nets, opts): opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step()
    return step

def grouped(x, y, members):
    nets = [small_net(norm='group', seed=s) for s in range(members)]
    state, _ = stack_module_state(nets); opt = torch.optim.SGD(state.values(), .01, momentum=.9)
    run = vmap(lambda p, x: functional_call(nets[0], p, (x,)), in_dims=(0, None))
    def step(): opt.zero_grad(); z = run(state, x); F.cross_entropy(z.flatten(0, 1), y.repeat(members)).mul(members).backward(); opt.step()
    return step

WORKER = '''
import sys, time, torch
sys.path.insert(0, sys.argv[1])
import cifar as b
torch.set_num_threads(int(sys.argv[2])); torch.manual_seed(0)
step = b.one_by_one(torch.randn(100, 3, 32, 32), torch.arange(100) % 10, 1)
step(); print('ready', flush=True); input()
n, end = 0, time.time() + float(sys.argv[3])
while time.time() < end: step(); n += 1
print(n)
'''

def processes(count, threads, least):
    "Steps of one member a second, of all processes together."
    here = os.path.dirname(os.path.abspath(__file__))
    ps = [subprocess.Popen([sys.executable, '-c', WORKER, here, str(threads), str(least)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    for p in ps: p.stdout.readline()
    for p in ps: p.stdin.write('go\n'); p.stdin.flush()
    return sum(int(p.communicate()[0]) for p in ps) / least

def several(members, rounds, least):
    "Images of one member a second, by way."
    x, y = torch.randn(100, 3, 32, 32), torch.arange(100) % 10
    def rate(step):
        step(); n, start = 0, time.perf_counter()
        while not n or time.perf_counter()-start < least: step(); n += 1
        return 100*members*n/(time.perf_counter()-start)
    ways = {'one after another': lambda: rate(one_by_one(x.to(memory_format=torch.channels_last), y, members)), 'grouped (vmap)': lambda: rate(grouped(x, y, members)),
            'one process, two threads': lambda: 100*processes(1, 2, least), 'two processes, one thread each': lambda: 100*processes(2, 1, least)}
    got = [{k: f() for k, f in ways.items()} for _ in range(rounds)]
    return {k: median(o[k] for o in got) for k in ways}

def airbench(images, device):
    "Seconds to 94 % by airbench's own recipe, and by one member of `ekd_cifar --preset fast` (its accuracy beside it)."
    try: import airbench as ab
    except ImportError: raise ImportError('airbench is missing: pip install airbench') from None
    ab.warmup94(); theirs = seconds(lambda: ab.train94(), device)
    t = Trainer(lambda: make_net('28-2', 10), Recipe(epochs=30, batch=512, lr=.4, **GPU), device)
    t.fit(replace(images, x_train=images.x_train[:2048], y_train=images.y_train[:2048]), 0)      # compiles
    mine = seconds(lambda: t.fit(images, 0), device)
    z = t.logits(images.x_test, images.stats)
    return dict(airbench94_s=theirs, ours_s=mine, ours_accuracy=100*(z.argmax(-1) == images.y_test.cpu()).float().mean().item())

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
          json:str=None,     # file for the rows
         ):
    "Training throughput of a member beside a plain loop; ways to train several."
    device, start = check_device(device), time.perf_counter()
    data = load_images('cifar10', dir)
    rows = balanced_subset(data.y_train, min(images, len(data.y_train)))
    some = replace(data, x_train=data.x_train[rows], y_train=data.y_train[rows]).to(device)
    base = Recipe(epochs=1, batch=batch, lr=.05)
    recipes = dict(ours=replace(base, augment=True))
    recipes |= {'ours, bfloat16': replace(base, **GPU | dict(compile='')), 'ours, bfloat16, compiled': replace(base, **GPU)} if device.type == 'cuda' else {'ours, no crops': base}
    fs = dict(plain=plain(some, net, base, device, workers)) | {k: ours(some, net, r, device) for k, r in recipes.items()}
    for f in fs.values(): f()
    times = [{k: seconds(f, device) for k, f in fs.items()} for _ in range(rounds)]
    used = len(rows)//batch*batch
    out = dict(rows=[dict(name=k, images_per_s=used/median(t[k] for t in times), over_plain=median(t['plain']/t[k] for t in times)) for k in fs])
    print(f'{net} on {device_name(device)}, {len(rows):,} images, batches of {batch}, median of {rounds} rounds')
    for r in out['rows']: print(f"  {r['name']:26} {r['images_per_s']:10,.0f} images/s  {r['over_plain']:6.2f} × plain")
    if device.type == 'cuda':
        out |= dict(matrix_tflops=matrix_rate(device)/1e12)
        out['matrix_share'] = out['rows'][-1]['images_per_s'] * 6*macs(make_net(net, 10)) / 1e12 / out['matrix_tflops']
        print(f"  bfloat16 matrix product {out['matrix_tflops']:.0f} TFLOPS; the last row reaches {out['matrix_share']:.1%} of it")
        if airbench94: out['airbench'] = airbench(data.to(device), device); print(' ', out['airbench'])
    else:
        out['several'] = several(4, rounds, 2.)
        for k, v in out['several'].items(): print(f'  {k:31} {v:8,.0f} images/s (small net, group norm)')
    if json: write_json(json, out | dict(provenance=provenance(dict(net=net, images=len(rows), batch=batch, rounds=rounds, workers=workers), 0, device, time.perf_counter()-start)))
