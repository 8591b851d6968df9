"Bad input at the doors of public functions and of the commands: one sentence that says what was expected."
import math, subprocess, sysconfig
from functools import partial
from pathlib import Path
import pytest, torch
from torch import nn
from ensemble_kd import cifar, claims, conditions, core, data, distill, ensemble, files, inputs, model, ntk, runs
from ensemble_kd import generations, lottery, self_distill, studies, theory, train, trainer, views, why

NAN, K = math.nan, 3
dist = data.MultiView(k=K, P=8, d=12, s=1.)
def g(): return torch.Generator().manual_seed(0)
some = dist.sample(9, g())
x, y = some.x, some.y
column, far, wild = y[:,None], y+1, x*NAN             # (n, 1) targets; a label that is no class; not finite
w = model.init_weights(range(2), K, 2, 12, .1)
F = model.predict(w, x)                               # (2, 9, 3)
z, strength = F[0], model.view_strength(w)
held, own = views.views_held(strength), strength.argmax(-1)
def meta(o): return o.to('meta')

DATA = [
    (lambda: data.MultiView(s=-1), 's/k is a probability'),
    (lambda: data.MultiView(d=19), 'd must be a whole number ≥ 20'),
    (lambda: data.MultiView(P=15.5), 'P must be a whole number'),
    (lambda: data.MultiView(mu=1.5), 'mu, a share, must be'),
    (lambda: data.MultiView(sigma_p=NAN), 'sigma_p must be a finite number'),
    (lambda: data.MultiView(own=(2., 1.)), 'low ≤ high'),
    (lambda: data.MultiView(noise='pink'), 'expected one of orthogonal, gaussian'),
    *((lambda n=n: dist.sample(n, g()), 'samples, must be a whole number ≥ 1') for n in (0, -3, 2.5, NAN)),
    (lambda: data.view_weights(dist, 0, g()), 'the number of samples'),
    (lambda: data.toy(3, g(), P=2), 'up to 3 features'),
    (lambda: data.toy(3, g(), d=2), 'd must be'),
    (lambda: data.toy(3, g(), sigma_p=-1.), 'sigma_p must be'),
    (lambda: data.toy(3, 0), 'generator must be a torch.Generator'),
    (lambda: data.view_weights(dist, 3, 0), 'generator must be a torch.Generator'),
    (lambda: data.MultiView(own=1.), 'low ≤ high'),
    (lambda: dist.sample(3, g(), dtype=torch.int64), 'dtype must be of floating-point numbers'),
    (lambda: data.render(some.weight, dist, g(), dtype=int), 'dtype must be of floating-point numbers'),
    (lambda: data.render(some.weight*NAN, dist, g()), 'weights must hold finite numbers only; got NaN'),
    (lambda: data.render(some.weight[:,:2], dist, g()), 'weights must be (n, 3, 2)'),
    *((lambda C_p=o: data.place_features(x*0, some.weight, C_p, g()), 'C_p, patches a feature,') for o in (0, 9, 1.5)),
    (lambda: data.place_features(x[...,:5], some.weight, 1, g()), 'd ≥ 6'),
    (lambda: data.gaussian_patches(0, 8, 12, 1., g()), 'n must be'),
    (lambda: data.gaussian_patches(3, 8, 12, 1., 0), 'generator must be')]

MODEL = [
    (lambda: model.smoothed_relu(x, 1), 'whole number ≥ 2; got 1'),
    (lambda: model.smoothed_relu(x, 3, 0), 'must be a finite number > 0; got 0'),
    (lambda: model.init_weights([-1], K, 2, 12, .1), 'a seed must be'),
    (lambda: model.init_weights([], K, 2, 12, .1), 'at least one seed'),
    (lambda: model.init_weights([2**63], K, 2, 12, .1), 'a seed must be'),
    (lambda: model.init_weights([0], K, 2, 12, .1, dtype=torch.int64), 'dtype must be of floating-point numbers'),
    *((lambda f=f, q=q, r=r: f(x, q, r), 'the smoothed ReLU') for q, r in [(1, 1.), (0, 1.), (4, -1.)]
      for f in (model.relu_and_slope, model.smoothed_relu_grad)),
    *((lambda f=f: f(w, x.double()), 'move one to the other') for f in (model.predict, model.patch_logits)),
    *((lambda f=f: f(w[:0], x), 'at least one of each') for f in (model.predict, model.patch_logits)),
    *((lambda f=f: f(meta(w), x), 'weights must be on a real device') for f in (model.predict, model.patch_logits)),
    (lambda: model.patch_logits(w, wild), 'NaN'),
    (lambda: model.patch_logits(w, x.tolist()), 'inputs must be a tensor'),
    (lambda: model.n_block(0, 9), 'P must be'),
    (lambda: model.init_weights([0], K, 1.5, 12, .1), 'm must be a whole number'),
    (lambda: model.init_weights([0], K, 2, 12, -.1), 'sigma0 must be'),
    (lambda: model.patch_logits(w[0], x), 'weights must be (L, k, m, d)'),
    (lambda: model.patch_logits(w, x[0]), 'inputs must be (n, P, 12)'),
    (lambda: model.predict(w, x[...,:5]), 'patches as long as the weights'),
    (lambda: model.predict(w, x[:0]), 'n ≥ 1; got (0, 8, 12)'),
    (lambda: model.predict(w, wild), 'NaN'),
    (lambda: model.predict(meta(w), meta(x)), 'meta device'),
    (lambda: model.PatchCNN(K, 2, 12, members=0), 'members must be'),
    (lambda: model.PatchCNN(K, 2, 12, seed=.5), 'seed must be'),
    (lambda: model.PatchCNN(K, 2, 12, q=2.5), 'q, the degree'),
    (lambda: model.view_strength(w[...,:5]), '2k axes'),
    (lambda: model.view_strength(w*NAN), 'NaN'),
    (lambda: model.view_strength(w, torch.ones(K, 2, 5)), 'features must be (3, V, 12)'),
    (lambda: model.view_strength(w, torch.ones(K, 2, 12).double()), 'move one to the other')]

fit = partial(train.train, w, x, y, steps=2)
TRAIN = [
    (lambda: train.cross_entropy(column, K), 'labels must be (n); got (9, 1)'),
    (lambda: train.cross_entropy(y.float(), K), 'a tensor of integers'),
    (lambda: train.cross_entropy(y.tolist(), K), 'labels must be a tensor'),
    (lambda: train.train(w, x, column), 'labels must be (9); got (9, 1)'),
    (lambda: train.train(w, x, far), 'from 0 to 2; got 1 to 3'),
    (lambda: train.train(w, x, y-1), 'from 0 to 2; got -1 to 1'),
    (lambda: train.train(w, x, y[:4]), 'labels must be (9); got (4,)'),
    (lambda: train.train(w, wild, y), 'inputs must hold finite numbers only; got NaN'),
    (lambda: train.train(w/0, x, y), 'weights must hold finite numbers only; got NaN'),
    (lambda: train.train(meta(w), x, y), 'meta device'),
    (lambda: train.train(w, x.double(), y), 'move one to the other'),
    (lambda: train.train(w[0], x, y), 'weights must be (L, k, m, d)'),
    (lambda: train.train(w, x[...,:5], y), 'inputs must be (n, P, 12)'),
    *((lambda lr=lr: fit(lr=lr), 'lr must be a finite number > 0') for lr in (0, -1., NAN, 'fast', None)),
    *((lambda steps=steps: fit(steps=steps), 'steps must be a whole number ≥ 1') for steps in (0, -5, 1.5, math.inf)),
    (lambda: fit(steps=2.), 'steps must be a whole number ≥ 1; got 2.0'),
    (lambda: fit(lr=1e308), 'lr must be a finite number > 0 and ≤ 3.4'),
    (lambda: fit(lr=lambda w, grad: .1), 'the rule lr must return a tensor (2,), a learning rate a member; got float'),
    (lambda: fit(lr=lambda w, grad: torch.ones(3)), 'a learning rate a member; got (3,)'),
    (lambda: train.loss_and_grad(w, x, train.cross_entropy(y, K), q=1), 'the smoothed ReLU'),
    (lambda: train.loss_and_grad(w, x, train.cross_entropy(y, K), varrho=-1.), 'the smoothed ReLU'),
    (lambda: train.loss_and_grad(w, x.double(), train.cross_entropy(y, K)), 'move one to the other'),
    (lambda: fit(stop_loss=-1.), 'stop_loss must be'),
    (lambda: fit(log_every=0), 'log_every must be'),
    (lambda: fit(varrho=-1.), 'varrho, where'),
    (lambda: train.train(w.double(), 100*x.double(), y, steps=20, lr=1e308), 'choose a lower one'),
    (lambda: train.GrowthLR(growth=-1.), 'growth must be'),
    (lambda: train.GrowthLR(low=3., high=1.), 'low ≤ high')]

ENSEMBLE = [
    (lambda: ensemble.average_logits(z), '(L, n, k); got (9, 3)'),
    (lambda: ensemble.average_logits(F*NAN), 'NaN'),
    (lambda: ensemble.average_logits(F[:0]), 'at least one value'),
    (lambda: ensemble.average_logits([z, z]), 'must be a tensor (L, n, k); got list'),
    (lambda: ensemble.average_probs(meta(F)), 'meta device'),
    *((lambda c=c: ensemble.average_logits(F, c), 'scale must be') for c in (NAN, 0, -1., None)),
    *((lambda e=e: ensemble.mu_error(*e, .05), 'must be in [0, 1], a share') for e in [(NAN, 0.), (.5, NAN), (2., 0.)]),
    *((lambda b=b: ensemble.reliability(z, y, b), 'bins must be') for b in (0, -1, 1.5)),
    (lambda: ensemble.view_errors(w, dist, 0, 10), 'generator must be'),
    (lambda: ensemble.error_rate(z, column), 'labels must be (n); got (9, 1)'),
    (lambda: ensemble.error_rate(z, far), 'from 0 to 2; got 1 to 3'),
    (lambda: ensemble.error_rate(z, y[:3]), 'logits must be (..., 3, k)'),
    (lambda: ensemble.error_rate(z*NAN, y), 'NaN'),
    (lambda: ensemble.error_rate(z.long(), y), 'convert it with .float()'),
    *((lambda mu=mu: ensemble.mu_error(.5, 0., mu), 'mu must be a finite') for mu in (0, -1, 2, NAN)),
    (lambda: ensemble.view_errors(w, dist, g(), 1), 'half of each kind'),
    (lambda: ensemble.view_errors(w, dist, g(), 10, batch=0), 'batch must be'),
    (lambda: ensemble.view_errors(w[:,:2], dist, g(), 10), 'from 0 to 1; got 0 to 2'),
    (lambda: ensemble.disagreement(F[:1]), 'needs two'),
    (lambda: ensemble.reliability(F, y), 'logits must be (9, k); got (2, 9, 3)'),
    (lambda: ensemble.measures(z, column), 'labels must be (n)'),
    (lambda: ensemble.cross_entropy_of_average(far, K), 'from 0 to 2')]

kd = partial(distill.kd_loss, z, y, z)
DISTILL = [
    (lambda: distill.kd_loss(z, column, z), '(n,) or (..., n); got (9, 3) and (9, 1)'),
    (lambda: distill.kd_loss(z, y, z[:,:2]), 'the teacher needs logits for each sample and class'),
    (lambda: distill.kd_loss(z, y, z[:4]), 'the teacher needs'),
    (lambda: distill.kd_loss(z, y, F), 'the teacher needs'),
    (lambda: distill.kd_loss(z, y, z[0]), 'sample and class, (9, 3); got (3,)'),
    *((lambda o=o: distill.kd_loss(z, o, z), 'labels must be') for o in (y-100, far)),
    (lambda: distill.kd_loss(z*NAN, y, z), "the student's logits must hold finite numbers only"),
    (lambda: distill.kd_loss(z, y, z*NAN), "the teacher's logits must hold finite numbers only"),
    (lambda: kd(T=torch.ones(4)), 'T must be a number or like (9,)'),
    *((lambda T=T: kd(T=T), 'T must be > 0') for T in (0, -4., NAN, math.inf)),
    *((lambda o=o: kd(weight=o), 'weight must be in [0, 1]') for o in (-.1, 2, NAN)),
    (lambda: distill.thresholded_softmax(z, 0), 'tau must be a finite number > 0'),
    (lambda: distill.threshold_step(y, z, tau=-.1), 'tau must be'),
    (lambda: distill.threshold_step(y, z, weight=-1.), 'weight must be a finite number ≥ 0'),
    (lambda: distill.threshold_step(column, z), 'labels must be (n)'),
    (lambda: distill.threshold_step(far, z), 'from 0 to 2'),
    (lambda: distill.threshold_step(y, z[:4]), "the teacher's logits must be (9, k); got (4, 3)"),
    (lambda: distill.window_step(y, z*NAN), 'NaN'),
    (lambda: distill.window_step(y, z, theta=1.), 'theta, below 1'),
    *((lambda f=f, bad=bad: f(y, bad), "the teacher's logits must be") for bad in (z[:4], z[0], z.tolist())
      for f in (distill.kl_step, distill.threshold_step, distill.window_step)),
    (lambda: distill.kl_step(y, z, T=0), 'T must be'),
    *((lambda o=o: distill.kl_step(y, z, weight=o), 'weight must be') for o in (2, -1., NAN)),
    (lambda: distill.window_step(y, z, weight=NAN), 'weight must be'),
    (lambda: distill.Step(tau=0), 'tau must be'),
    (lambda: distill.Step(theta=1.), 'theta, below 1'),
    (lambda: fit(objective=distill.kl_step(y, F.repeat(2, 1, 1))), 'for 4 students and 3 classes; got 2 and 3'),
    *((lambda o=o: distill.distill(w, x, y, o), "the teacher's logits must be")
      for o in (z[:,:2], z[:4], F[:1], F.repeat(2, 1, 1))),
    (lambda: distill.distill(w, x.double(), y, z), 'move one to the other'),
    (lambda: distill.teacher_logits('ensemble', F, y, held[:1], own), 'logits of the members must be (1, 9, 3)'),
    *((lambda E=E: distill.chosen_members('ensemble', held, own, E), 'E, members that teach,') for E in (0, 3, .5)),
    (lambda: distill.chosen_members('other', held[:1], own), 'the number of students'),
    (lambda: distill.chosen_members('own_view', held, own+1), "the students' own views must be"),
    (lambda: distill.lamp(distill.Step(), F, F[:,:4], y), "the students' logits must be (2, 9, 3)"),
    (lambda: distill.dark_knowledge(z[:4], some), 'targets must be (9, 3)'),
    (lambda: distill.distill(w, x, y, z, scale=0), 'scale must be'),
    (lambda: distill.distill(w, x, y, z, steps=0), 'steps must be'),
    (lambda: distill.distill(w, x, y, meta(z)), 'meta device'),
    (lambda: distill.label_teacher(y, z[:3]), "the teacher's logits must be (9, k)")]

SELF_DISTILL = [
    (lambda: self_distill.teachers_of('born_again', 0, 2), 'expected one of single, average, kd, self_kd'),
    *((lambda i=i: self_distill.teachers_of('self_kd', i, 3), 'the student must be') for i in (-1, 3, 7, .5)),
    (lambda: self_distill.teachers_of('kd', 0, 0), 'the number of members must be'),
    (lambda: self_distill.teachers_of('kd', -1, 2), 'the student must be'),
    *((lambda o=o: self_distill.five_columns(lambda column, teacher: dict(train=F), {o: len}), 'a name of its own')
      for o in self_distill.COLUMNS),
    (lambda: self_distill.five_columns(lambda column, teacher: dict(test=F)), "fit must return 'train'"),
    (lambda: self_distill.lessons('self_kd', F[:1]), 'needs a second, independently trained network'),
    (lambda: self_distill.lessons('kd', z), 'logits of the members must be (L, n, k)'),
    (lambda: self_distill.self_distill(w[:1], x, y), 'needs a second'),
    (lambda: self_distill.self_distill(w[0], x, y), 'weights must be (L, k, m, d)'),
    (lambda: self_distill.self_distill(w, x, column), 'labels must be (n)'),
    (lambda: self_distill.five_columns(lambda column, teacher: dict(train=z)), '(L, n, k); got (9, 3)'),
    (lambda: self_distill.five_columns(lambda column, teacher: dict(train=F*NAN)), 'NaN')]

positive = partial(claims.Claim, 'a', '', '', claims.Positive())
CLAIMS = [
    (lambda: claims.mean_ci([]), 'at least one value'),
    (lambda: claims.mean_ci([1., NAN]), 'finite values'),
    (lambda: claims.mean_ci([1., 2.], level=1.), 'level, below 1'),
    *((lambda o=o: claims.Band(o), 'a band inside its wider band') for o in [(1, 0), (None, None), (NAN, 1)]),
    (lambda: claims.Band((0, 1), (0, .5)), 'a band inside its wider band'),
    (lambda: positive(float, (-1, 1)), "the paper's own figures (-1, 1) would fail"),
    (lambda: claims.judge([positive(float)], [1., math.inf]), 'finite values')]

OUT = Path('/dev/null')                               # no folder can be made in it
RUNS = [
    (lambda: runs.check_device('tpu'), 'expected one of auto, cpu'),
    (lambda: runs.check_device('cuda:99'), 'expected one of auto, cpu'),
    (lambda: runs.write_json(OUT/'a.json', dict(a=NAN)), 'not JSON compliant'),
    (lambda: runs.save_arrays(OUT/'a', dict(a=NAN), dict(x=x)), 'not JSON compliant'),
    (lambda: runs.check_same_run(dict(a=1, b=2), dict(a=2, b=2), OUT), 'a was 1, now 2'),
    (lambda: runs.check_same_run(dict(a=dict(b=1, c=2)), dict(a=dict(b=1, c=3)), OUT), '(a.c was 2, now 3)'),
    (lambda: runs.check_same_run([], dict(a=2), OUT), 'is damaged'),
    *((lambda o=o: runs.Unit(o, dict), 'a name that a file can have') for o in ('../../x', 'a/b', '', '.a', None)),
    (lambda: runs.checksum(x, meta(x)), 'tensor 1 of a checksum must be'),
    (lambda: runs.checksum([1.]), 'got list'),
    (lambda: runs.save_arrays(OUT/'a', {}, dict(x=meta(x))), 'x must be a tensor with values'),
    (lambda: core.seed_of(-1), 'a seed must be a whole number ≥ 0'),
    (lambda: core.generator(1.5), 'a seed must be')]

arm, arm3 = theory.Arm('kd', networks=1), theory.Arm('s', 'other', start='single', networks=3)
preset = partial(theory.Preset, dist, 9, (arm,), members=2)
THEORY = [
    (lambda: theory.Arm('a', 'oracle'), 'unknown teacher'),
    (lambda: theory.Arm('a', start='warm'), 'expected one of fresh, single'),
    (lambda: theory.Arm('a', networks=0), 'networks must be'),
    (lambda: theory.Arm('a', steps=1.5), 'steps must be'),
    (lambda: theory.Step('mse'), 'expected one of window, threshold, kl'),
    *((lambda k=k: preset(**{k: 0}), f'{k} must be') for k in ('members', 'max_steps', 'repeats', 'n_probe')),
    (lambda: theory.Preset(dist, 0, (arm,)), 'n_train must be'),
    (lambda: theory.Preset(dist, 9, (arm, arm)), 'a name of its own; got kd, kd'),
    (lambda: theory.Preset(dist, 9, (arm3,), members=2), 'networks of s, which continue singles'),
    (lambda: theory.teacher_logits('oracle', F, y, held, own), 'expected one of ensemble, own_view'),
    (lambda: theory.first_weights(preset(), -1, 'members', 2), 'a seed must be'),
    (lambda: theory.first_weights(preset(), 0, 'members', 0), 'at least one seed')]

flat, square, net = x.flatten(1), torch.eye(9), nn.Linear(96, K)
NTK = [
    (lambda: ntk.linearize(nn.Sequential(net, nn.Dropout())), 'call net.eval()'),
    (lambda: ntk.linearize(net, params='head'), "params='head' picks none"),
    (lambda: ntk.linearize(nn.Linear(3, 2).half()), 'float32 or float64 parameters'),
    (lambda: ntk.linearize(nn.Linear(3, 2, device='meta')), 'meta device'),
    (lambda: ntk.tangent_features(net, flat*NAN), 'x must hold finite numbers only; got NaN'),
    (lambda: ntk.tangent_features(net, flat.double()), 'move one to the other'),
    (lambda: ntk.tangent_features(net, flat[:0]), 'at least one value'),
    (lambda: ntk.tangent_features(net, flat, max_mib=0), 'max_mib must be'),
    (lambda: ntk.empirical_ntk(net, flat, kind='all'), 'expected one of full, trace, class'),
    (lambda: ntk.empirical_ntk(net, flat, method='fast'), 'expected one of auto'),
    (lambda: ntk.empirical_ntk(net, flat, flat[:,:5]), 'samples of one shape'),
    (lambda: ntk.empirical_ntk(net, flat, max_mib=1e-4), 'is too little'),
    (lambda: ntk.patch_features(w[0], x), 'weights must be (L, k, m, d)'),
    (lambda: ntk.patch_ntk(w, x, x[0]), 'inputs must be (n, P, 12)'),
    (lambda: ntk.kernel_matrix(torch.ones(2, 3, 4, 5)), 'a kernel must be'),
    (lambda: ntk.check_kernel(square.triu() + square.roll(1, 1)), 'not symmetric'),
    (lambda: ntk.kernel_drift(0*square, square), 'is zero'),
    (lambda: ntk.kernel_drift(square, square[:3]), 'after training must be (9, 9)'),
    (lambda: ntk.kernel_alignment(square, column-1), 'targets must hold floating-point numbers'),
    (lambda: ntk.kernel_alignment(square, y*0), 'constant')]

recipe = trainer.Recipe(epochs=2, batch=3)
wild_recipe = trainer.Recipe(epochs=2, batch=3, lr=1e5, optimizer='adam')
def linear(): return nn.Linear(96, K)
def few(): return nn.Linear(96, 2)
known = inputs.TensorData(flat, y)
def fit_one(seed, recipe=recipe, **kw): return trainer.Trainer(linear, recipe).fit(known, seed, **kw)
def taught(teacher, **kw): return fit_one(0, teacher=trainer.cached_teacher(teacher), **kw)
def side_by_side(*args, **kw): return trainer.Stacked(linear, recipe).fit(known, *args, **kw)
SETTINGS = dict(epochs=(0, 1.5), batch=(0, -3), lr=(0, -1., NAN, 1e20), momentum=(-.1, 1.), weight_decay=(-1.,),
                warmup=(1.,), temperature=(0, NAN), kd_weight=(-.1, 1.1), smoothing=(2.,), average_lr=(0,),
                optimizer=('lion',), schedule=('flat',), precision=('int4',))
TRAINER = [
    *((lambda k=k, v=v: trainer.Recipe(**{k: v}), k) for k, values in SETTINGS.items() for v in values),
    (lambda: inputs.TensorData(flat, y[:3]), 'one for each of the 9 inputs; got 3'),
    (lambda: inputs.TensorData(flat, column), 'labels must be (n); got (9, 1)'),
    (lambda: inputs.TensorData(flat, y-1), 'from 0 to'),
    (lambda: inputs.TensorData(flat, y > 0), 'whole numbers'),
    (lambda: inputs.TensorData(flat, y*NAN), 'targets must hold finite numbers only; got NaN'),
    (lambda: inputs.TensorData(flat*NAN, y), "the inputs 'train' must hold finite numbers only; got NaN"),
    (lambda: inputs.TensorData(meta(flat), y), "the inputs 'train' must be on a real device"),
    (lambda: inputs.TensorData(flat.tolist(), y), 'got float'),
    (lambda: inputs.TensorData(flat, y, train=flat), 'give it once'),
    (lambda: inputs.TensorData(flat, y, test=flat[:0]), "the inputs 'test' must hold one number of samples"),
    (lambda: inputs.TensorData((flat, flat[:3]), y), 'got [3, 9]'),
    (lambda: inputs.TensorData(flat, meta(y)), 'meta device'),
    (lambda: trainer.Trainer(linear, recipe, members=0), 'members must be'),
    (lambda: fit_one(-1), 'a seed must be'),
    (lambda: fit_one(0, trainer.Recipe(epochs=2, batch=3, lr=1e6)), 'diverged in epoch'),
    (lambda: taught(z[:,:2]), 'the teacher needs logits'),
    (lambda: taught(z[:4]), 'logits for each of the 9 samples; got 4'),
    (lambda: taught(z*NAN), "the teacher's logits must hold finite numbers only; got NaN"),
    (lambda: fit_one(0, teacher=lambda x, rows: z[rows]*NAN), 'diverged in epoch 0: mean loss nan'),
    (lambda: taught(z, T=0), 'T must be a finite number > 0'),
    (lambda: taught(z, weight=2), 'weight must be a finite number ≥ 0 and ≤ 1'),
    *((lambda o=o: fit_one(0, lr_scale=o), 'lr_scale must be') for o in (-1, 0, NAN)),
    (lambda: trainer.Trainer(few, recipe).fit(known, 0), 'labels must be from 0 to 1'),
    (lambda: trainer.Trainer(few, recipe, members=2).fit(known, 0), 'labels must be from 0 to 1'),
    (lambda: trainer.Trainer(linear, recipe).fit(inputs.TensorData(flat, y/1), 0), 'a loss of their own'),
    (lambda: trainer.Trainer(linear, recipe).logits(known, 'tset'), 'expected one of train'),
    (lambda: trainer.Stacked(few, recipe).fit(known, [0]), 'labels must be from 0 to 1'),
    (lambda: trainer.Stacked(few, recipe).fit(known, [0, 1], average=True), 'labels must be from 0 to 1'),
    *((lambda o=o: trainer.Stacked(lambda: nn.Sequential(linear(), o), recipe).fit(known, [0]), 'use GroupNorm')
      for o in (nn.BatchNorm1d(K), nn.Dropout())),
    (lambda: trainer.Stacked(linear, wild_recipe).fit(known, [0, 1]), 'network 1 of 2 diverged in epoch'),
    (lambda: trainer.Stacked(linear, wild_recipe).fit(known, [0, 1], average=True), 'diverged in epoch'),
    (lambda: side_by_side([-1]), 'a seed must be'),
    (lambda: side_by_side([]), 'at least one seed'),
    (lambda: side_by_side([0], z, average=True), 'takes no teacher'),
    (lambda: side_by_side([0], F), "the teacher's logits must be (1, 9, k)"),
    (lambda: side_by_side([0, 1, 2], F), "the teacher's logits must be (3, 9, k)"),
    (lambda: side_by_side([0, 1], F[...,:2]), 'the teacher needs logits'),
    (lambda: side_by_side([0, 1], z*NAN), 'NaN'),
    (lambda: side_by_side([0, 1], z, T=[1., 2., 3.]), 'T must be a number, or one for each of the 2 networks'),
    (lambda: side_by_side([0], z, T=0), 'T must be a finite number > 0'),
    (lambda: side_by_side([0], z, weight=-1), 'weight must be a finite number ≥ 0 and ≤ 1')]

repeat = partial(studies.study_repeat, linear, flat, y, 0, (3, 3), members=2, students=1, recipe=recipe)
def begin(make=linear, train=None, test=None, **kw):
    own = dict(valid=2, repeats=1, members=2, recipe=recipe, device='cpu', progress=False, out=OUT)
    return studies.study(make, (flat, y) if train is None else train, 3 if test is None else test, **own | kw)
few_rows = [(flat[i], int(y[i])) for i in range(5)]
STUDY = [
    (lambda: files.split(y, 0, (0, 3)), 'a part of the split must be'),
    (lambda: files.split(y, 0, (6, 3)), 'must leave test samples among 9'),
    (lambda: files.split(column, 0, (3, 3)), 'labels must be (n)'),
    *((lambda o=o: files.split(y, 0, o), 'sizes must be two') for o in [(3,), (2, 2, 2), ()]),
    (lambda: files.split(y, -1, (3, 3)), 'the seed of the split'),
    (lambda: files.shifts(x[:,None], y[:4]), 'labels must be (9)'),
    (lambda: files.shifts(x[0], y), 'images must be (n, c, h, w)'),
    *((lambda o=o: files.small_cnn(**o), 'must be a whole number ≥ 1') for o in (dict(width=0), dict(classes=-1))),
    (lambda: files.mlp(3, 0), 'outputs must be a whole number ≥ 1'),
    (lambda: studies.study_repeat(linear, flat[:4], y, 0, (3, 3)), 'labels must be (4)'),
    (lambda: studies.choose(torch.zeros(2, 1, 9, K)*NAN, y), 'NaN'),
    (lambda: studies.choose(torch.zeros(2, 1, 4, K), y), 'logits must be'),
    (lambda: repeat(members=1), 'members must be a whole number ≥ 2'),
    (lambda: repeat(students=3), 'students must be a whole number ≥ 1 and ≤ 2'),
    (lambda: studies.study_repeat(linear, flat*NAN, y, 0, (3, 3)), 'NaN'),
    (lambda: studies.study_repeat(linear, flat, y/1, 0, (3, 3)), 'a tensor of integers'),
    (lambda: begin(repeats=0), 'repeats must be'),
    (lambda: begin(seed=-1), 'seed must be'),
    (lambda: begin(members=1), 'members must be a whole number ≥ 2'),
    (lambda: begin(students=3), 'students must be a whole number ≥ 1 and ≤ 2'),
    (lambda: begin(device='tpu'), 'expected one of auto, cpu'),
    (lambda: begin(train=(flat, y[:4])), 'one for each of the 9 inputs; got 4'),
    (lambda: begin(train=(flat, y-1)), 'from 0 to'),
    (lambda: begin(train=(flat*NAN, y)), "the inputs 'train' must hold finite numbers only; got NaN"),
    (lambda: begin(test=(flat, y+1)), 'the number of outputs, for labels up to 3 of test,'),
    (lambda: begin(test=(flat, y/1)), 'in all data'),
    (lambda: begin(train=[o[0] for o in few_rows]), 'must be a pair (inputs, label)'),
    (lambda: begin(train=few_rows, test=7), 'leave none of 5'),
    (lambda: begin(train=iter(few_rows)), 'a Dataset with a length'),
    (lambda: begin(test=[]), 'test is empty'),
    (lambda: begin(valid=0), 'valid, a share, or a number of samples, must be'),
    (lambda: begin(valid=NAN), 'valid, a share, or a number of samples, must be'),
    (lambda: begin(valid=9), 'leave none of 9'),
    (lambda: begin(stacked=True, make=lambda: nn.Sequential(net, nn.BatchNorm1d(K))), 'share weights'),
    (lambda: begin(stacked=True, make=lambda: nn.Sequential(linear(), nn.BatchNorm1d(K))), 'use GroupNorm or LayerNorm'),
    (lambda: begin(make=lambda: nn.Linear(96, 2)), 'the number of outputs, for labels up to 2 of train,'),
    (lambda: begin(make=lambda: nn.Linear(7, K)), 'does not take a batch'),
    (lambda: begin(make=linear()), 'got a network'),
    (lambda: begin(make=nn.Flatten), 'nothing to train'),
    (lambda: begin(vary=('luck',)), 'vary must name some of weights, order, noise'),
    (lambda: begin(train=(flat, flat[:,:3]), grid=studies.GRID), 'label smoothing needs labels')]

images, conv = torch.rand(4, 3, 8, 8), nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
def same(o): return o
picture = partial(views.feature_visualization, conv, '0', prepare=same, size=8, steps=2)
BAD_PICTURES = dict(steps=-1, n=0, size=1, lr=0, jitter=-1)
VIEWS = [
    (lambda: views.views_held(strength[0]), 'view strengths must be (L, k, V)'),
    (lambda: views.views_held(strength*NAN), 'NaN'),
    *((lambda o=o: views.both_views(strength, o), 'share must be') for o in (0, -1., 1.5)),
    (lambda: views.lottery(strength, strength[:1]), 'after training must be (2, 3, 2)'),
    (lambda: views.lottery(meta(strength), strength), 'meta device'),
    (lambda: views.top_images(conv, '9', 0, images, same), 'expected one of 0, 1'),
    *((lambda c=c: views.top_images(conv, '0', c, images, same), "channel of layer '0' must") for c in (-1, 4, .5)),
    (lambda: views.top_images(conv, '1', 0, images, same), 'gives no maps of channels'),
    (lambda: views.top_images(conv, '0', 0, images[0], same), 'images must be (N, c, h, w)'),
    (lambda: views.top_images(conv, '0', 0, images, same, n=0), 'n must be'),
    *((lambda k=k, v=v: picture(0, **{k: v}), f'{k} must be') for k, v in BAD_PICTURES.items()),
    (lambda: picture(0, seed=-1), 'a seed must be'),
    (lambda: picture(4), 'the channel of layer')]

one = dist.sample(9, g(), single=True)
small = theory.Preset(dist, 9, (), m=2, members=2, max_steps=1, n_test=4, compiled=False)
WHY = [
    (lambda: lottery.error_by_view(F, some, held), 'single-view data are needed'),
    (lambda: lottery.error_by_view(F, one, held[:1]), 'views that the members hold must be (2, 3, 2)'),
    (lambda: lottery.advantage(strength, some, 2), 'no race below 3'),
    (lambda: lottery.advantage(strength[:,:2], some, 3), 'view strengths must be (L, 3, 2)'),
    (lambda: lottery.advantage(strength, one, 3), 'multi-view samples that show both views'),
    (lambda: lottery.race_times(w, some, 0.), 'goal must be'),
    (lambda: lottery.race_times(w, some, 1., q=2), 'no race below 3'),
    (lambda: lottery.limit([1, 2], [1, 2]), 'three different sizes'),
    (lambda: lottery.limit([1, 2, 3], [1, 2]), 'an error for each'),
    (lambda: generations.generations(small, 0, n=0), 'n, generations, must be'),
    (lambda: generations.generations(small, 0, fresh=False, networks=1), 'a neighbour teaches'),
    (lambda: conditions.changed(small, 'luck'), 'expected one of regime'),
    (lambda: conditions.Way(batch=0), 'batch must be'),
    (lambda: conditions.Way(dropout=1.), 'dropout, below 1, must be'),
    (lambda: conditions.Way(crop=0.), 'crop must be'),
    (lambda: conditions.Way(lr=NAN), 'lr must be'),
    (lambda: why.ask('luck'), 'expected one of mechanism'),
    (lambda: why.ask('lottery', 'huge'), 'expected one of default'),
    (lambda: why.ask('lottery', 'quick', seed=-1), 'seed must be')]

TABLES = dict(data=DATA, model=MODEL, train=TRAIN, ensemble=ENSEMBLE, distill=DISTILL, self_distill=SELF_DISTILL,
              claims=CLAIMS, runs=RUNS, theory=THEORY, ntk=NTK, trainer=TRAINER, study=STUDY, views=VIEWS,
              why=WHY)
ROWS = [pytest.param(*row, id=f'{name}-{row[1]}') for name, rows in TABLES.items() for row in rows]

@pytest.mark.parametrize('call, says', ROWS)
def test_bad_input_is_a_sentence_that_says_what_was_expected(call, says):
    with pytest.raises((ValueError, FloatingPointError)) as e: call()
    assert says in str(e.value) and '\n' not in str(e.value)

# --- commands

BAD_THEORY = [dict(seed=-1), dict(seed=2**40), dict(preset='foo'), dict(preset='quick', device='tpu'),
              dict(preset='quick', out='/dev/null/x')]
BAD_STUDY = [dict(members=2000), dict(members=1), dict(students=11), dict(lr=1e20), dict(lr=-1.), dict(lr=NAN),
             dict(width=10**6), dict(width=10**4), dict(width=500, members=1000), dict(epochs=0), dict(seeds=0), dict(seed=-1), dict(train=0), dict(valid=1790),
             dict(data='mnist'), dict(device='gpu'), dict(out='/dev/null/x')]
BAD_CIFAR = [dict(net='11-1'), dict(net='10-0'), dict(net='wide'), dict(preset='foo'), dict(data='mnist'),
             dict(members=0), dict(members=1), dict(members=2000), dict(epochs=0), dict(seed=-1), dict(device='tpu')]
DRY = [dict(dry=True) | o for o in BAD_CIFAR]
COMMANDS = {theory.ekd_theory: BAD_THEORY, studies.ekd_study: BAD_STUDY, cifar.ekd_cifar: DRY}
BAD = [pytest.param(c, o, id=f'{c.__name__}-{o}') for c, settings in COMMANDS.items() for o in settings]

@pytest.mark.parametrize('command, settings', BAD)
def test_a_command_ends_with_one_line(command, settings, tmp_path, monkeypatch, capsys):
    if command is studies.ekd_study: pytest.importorskip('sklearn')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, 'set_num_threads', lambda n: None)
    with pytest.raises(SystemExit) as e: command(**settings)
    out, err = capsys.readouterr()
    assert e.value.code == 2 and not out
    assert err.startswith(f'{command.__name__}: ') and err.count('\n') == 1
    assert not [*tmp_path.iterdir()]                              # nothing was begun

@pytest.mark.parametrize('args, says, status', [
    (('ekd_theory', '--seed', '-1'), 'ekd_theory: seed must be', 2),
    (('ekd_study', '--members', 'many'), 'invalid int value', 2),
    (('ekd_cifar', '--net', '28x2', '--dry'), 'ekd_cifar: unknown network', 2), (('ekd_theory', '--help'), '', 0)])
def test_from_the_shell(args, says, status, tmp_path):
    name, *options = args
    script = Path(sysconfig.get_path('scripts'))/name
    p = subprocess.run([script, *options], cwd=tmp_path, capture_output=True, text=True)
    assert p.returncode == status and says in p.stderr and 'Traceback' not in p.stderr
    if not status: assert all(o in p.stdout for o in ('quick', 'default', 'paper', '--out', 'resumes'))

# --- coverage

from ensemble_kd import coverage

pictures, kinds = torch.rand(20, 1, 8, 8), torch.arange(20) % 4
answers, knows = torch.randn(3, 20, 4), torch.randn(20, 5)
leads = torch.rand(3, 4)
def pair(x=pictures, y=kinds, **kw): return coverage.two_view_images(x, y, **kw)
def probe(*args): return coverage.probe(*args)
COVERAGE = [
    *((lambda f=f: f(answers[:1], kinds), 'needs two') for f in (coverage.error_overlap, coverage.tied_errors)),
    *((lambda f=f: f(answers[0], kinds), 'logits of the members must be') for f in (coverage.error_overlap, coverage.tied_errors)),
    (lambda: coverage.error_overlap(answers, kinds+1), 'from 0 to 3'),
    (lambda: coverage.error_overlap(answers*NAN, kinds), 'NaN'),
    (lambda: coverage.penultimate(nn.Tanh(), knows), 'has no linear layer'),
    (lambda: probe(knows, kinds[:9], knows, kinds), 'features to fit on must be (9, d)'),
    (lambda: probe(knows, kinds, knows[:,:3], kinds), 'features to test on must be (20, 5)'),
    (lambda: probe(knows*NAN, kinds, knows, kinds), 'NaN'),
    (lambda: probe(knows, kinds/1, knows, kinds), 'whole numbers'),
    *((lambda o=o: coverage.KeepChannels(4, o), 'share must be') for o in (0, -1, 1.5, NAN)),
    *((lambda o=o: coverage.KeepChannels(o, .5), 'channels must be') for o in (0, 1.5)),
    (lambda: pair(pictures[0]), 'images must be (n, c, h, w)'),
    (lambda: pair(y=kinds[:9]), 'must be (20)'),
    (lambda: pair(single=2.), 'single must be'),
    (lambda: pair(weak=-1.), 'weak must be'),
    (lambda: pair(seed=-1), 'a seed must be'),
    (lambda: pair(y=kinds*2), 'class 1 has none'),
    (lambda: coverage.winner_spread(leads[:1], leads[:1]), 'needs two'),
    (lambda: coverage.winner_spread(leads, leads[:,:2]), 'leads must be (3, 4)'),
    (lambda: coverage.strided_cnn(width=0), 'width must be'),
    (lambda: coverage.COVERAGE.settings('huge'), 'one of default, quick, cifar, paper')]

@pytest.mark.parametrize('call, says', COVERAGE)
def test_coverage_says_what_was_expected(call, says):
    with pytest.raises(ValueError) as e: call()
    assert says in str(e.value) and '\n' not in str(e.value)

# --- controls

from ensemble_kd import controls

spots, spot_labels = torch.randn(12, 8, 8), torch.arange(12) % 4
made = dict(chosen=0, train=[1.], single=[1.], ensemble=[1.], best=[1.])
def measured(x=spots, y=spot_labels, sizes=(4, 4), noise=0., learner='fc3'):
    return controls.measure(controls.GaussianPreset(), learner, x, y, 4, sizes, noise, 0)
CONTROLS = [
    (lambda: controls.network('fc9'), 'unknown structure'),
    *((lambda k=k: controls.network('fc2', **{k: 0}), f'{k} must be') for k in ('classes', 'width', 'channels')),
    (lambda: controls.gaussian_inputs(0, g()), 'the number of inputs'),
    (lambda: controls.gaussian_inputs(3, g(), spots[0]), 'centres must be (c, 8, 8)'),
    (lambda: controls.gaussian_inputs(3, g(), spots*NAN), 'NaN'),
    (lambda: controls.random_target('mlp', 0, spots), 'unknown structure'),
    (lambda: controls.random_target('fc2', -1, spots), 'a seed must be'),
    (lambda: controls.random_target('fc2', 0, spots*NAN), 'NaN'),
    (lambda: controls.label_and_margin(controls.network('fc2'), spots[0]), 'inputs must be (n, 8, 8)'),
    (lambda: controls.balanced_rows(spot_labels, 0, 4), 'the number of rows'),
    (lambda: controls.balanced_rows(spot_labels, 4, 3), 'from 0 to 2'),
    *((lambda o=o: controls.flip_labels(spot_labels, o, 4, g()), 'share must be') for o in (-.1, 1.1, NAN)),
    (lambda: controls.flip_labels(spot_labels, .1, 1, g()), 'classes must be'),
    (lambda: controls.sample_cell(controls.CELLS[0], 0, 0), 'the number of samples'),
    (lambda: controls.sample_cell(controls.CELLS[0], 9, -1), 'a seed must be'),
    (lambda: controls.sample_views('cifar', 9, 0), 'one of multi-view, digits'),
    (lambda: controls.GaussianPreset(members=1), 'members must be'),
    (lambda: controls.GaussianPreset(('fc9',)), 'unknown target'),
    (lambda: measured(spots*NAN), 'NaN'),
    (lambda: measured(y=spot_labels[:3]), 'inputs must be (3, 8, 8)'),
    (lambda: measured(sizes=(4, 8)), 'the number of test samples'),
    (lambda: measured(noise=2.), 'share must be'),
    (lambda: measured(learner='mlp'), 'unknown structure'),
    (lambda: controls.controls_seed(controls.GaussianPreset(), 0, piece='all'), 'unknown piece'),
    (lambda: controls.gain(made, 'luck'), 'unknown kind of gain'),
    (lambda: controls.mean_gain('cnn'), 'unknown group'),
    (lambda: controls.read_paper(__file__), 'must have single/ensemble for all 112 cells')]

@pytest.mark.parametrize('call, says', CONTROLS)
def test_controls_say_what_was_expected(call, says):
    with pytest.raises(ValueError) as e: call()
    assert says in str(e.value) and '\n' not in str(e.value)

# --- lenses

from ensemble_kd import lenses
said = torch.rand(5, 20, 3)
truth, flat_inputs = torch.arange(20) % 3, torch.rand(20, 4)
def never(*args): raise AssertionError('nothing may be trained')
def differ(arm='seeds', members=2, n=9): return lenses.members_that_differ(arm, never, members, n, 0)
def bowl(w): return w.flatten(1).square().sum(1)
def teams(kind='bagging', x=flat_inputs, y=truth, **kw): return lenses.team(kind, x, y, flat_inputs, 2, 1, **kw)
LENSES = [
    (lambda: differ('luck'), 'expected one of seeds, data, both, neither, mixed'),
    *((lambda o=o: differ(members=o), 'members must be') for o in (0, -1, 1.5)),
    (lambda: differ(n=0), 'n must be'),
    (lambda: lenses.learner('oracle'), 'expected one of trees, bagging'),
    *((lambda o=o: lenses.learner('features', 0, o), 'features must be') for o in (0, 1.5, NAN)),
    (lambda: teams('oracle'), 'expected one of trees'),
    (lambda: teams(x=flat_inputs[0]), 'inputs must be (n, f)'),
    (lambda: teams(x=flat_inputs*NAN), 'NaN'),
    (lambda: teams(y=truth[:9]), 'labels must be'),
    (lambda: teams(y=truth/1), 'a tensor of integers'),
    (lambda: lenses.loss_parts(said, truth[:9]), 'logits of the members must be (L, 9, k)'),
    (lambda: lenses.loss_parts(said[0], truth), 'must be (L, 20, k)'),
    (lambda: lenses.loss_parts(said*NAN, truth), 'NaN'),
    (lambda: lenses.loss_parts(said, truth+1), 'from 0 to 2'),
    (lambda: lenses.luck(said[:3], truth), 'teams of three'),
    (lambda: lenses.luck(said[:,:1], truth[:1]), 'samples must be'),
    (lambda: lenses.luck(said*NAN, truth), 'NaN'),
    *((lambda o=o: lenses.top_curvature(bowl, torch.ones(2, 3), o), 'steps must be') for o in (0, 1.5)),
    (lambda: lenses.sharpness(w[0], some), 'weights must be (L, k, m, d)'),
    (lambda: lenses.sharpness(w*NAN, some), 'NaN'),
    *((lambda k=k, v=v: lenses.LensPreset(**{k: v}), f'{k} must be') for k, v in
      dict(members=3, students=11, n_test=0, images=9, features=.5, repeats=0).items()),
    (lambda: lenses.LENSES.settings('huge'), 'one of default, quick, paper')]

@pytest.mark.parametrize('call, says', LENSES)
def test_lenses_say_what_was_expected(call, says):
    pytest.importorskip('sklearn')
    with pytest.raises(ValueError) as e: call()
    assert says in str(e.value) and '\n' not in str(e.value)

# --- members and teachers

from ensemble_kd import members, teachers

team, points = [nn.Linear(4, 3) for _ in range(3)], torch.rand(6, 4)
def joined(nets=team, **kw): return members.Ensemble(nets, **kw)
def cycles(cycle=5): return members.Snapshots(team[0], torch.optim.SGD(team[0].parameters(), lr=.1), cycle)
def keep(net=team[0], x=(points,), **kw):
    from tempfile import TemporaryDirectory
    with TemporaryDirectory() as d: return teachers.save_outputs(d, net, x, 'points', **kw)
def of_many(G=torch.rand(2, 9, 3), **kw): return distill.kd_loss_of_many(z, y, G, **kw)
def decoupled(**kw): return distill.decoupled_kd_loss(**dict(z=z, y=y, teacher=z) | kw)
MEMBERS = [
    (lambda: joined([]), 'at least one network'),
    (lambda: joined([nn.Linear]), 'member 0 must be an nn.Module; got type'),
    (lambda: joined(team*2), 'a member twice'),
    (lambda: joined(outputs='votes'), 'expected one of logits, probabilities, values'),
    *((lambda o=o: joined(weights=o), 'the weight of a member must be') for o in ([1, 1, -1], [1, 1, NAN], ['a', 1, 1])),
    (lambda: joined(weights=[1, 1]), 'each of the 3 members; got 2'),
    (lambda: joined(weights=[0, 0, 0]), 'at least one member must be above 0'),
    (lambda: joined([*team, nn.Linear(4, 2)])(points), 'outputs of one shape; got (6, 3), (6, 3), (6, 3), (6, 2)'),
    (lambda: joined([nn.LSTM(4, 3)])(points), 'must return a tensor; got tuple'),
    *((lambda o=o: joined().add(nn.Linear(4, 3), o), 'weight, a share below 1, must be') for o in (0, 1, -1, NAN)),
    (lambda: joined(weights=[1, 2, 3]).add(nn.Linear(4, 3)), 'give the new one a share'),
    (lambda: joined().add(team[0]), 'a member twice'),
    (lambda: members.Ensemble.load('nowhere'), "'nowhere' holds no ensemble"),
    (lambda: members.Ensemble.load('nowhere', device='tpu'), "unknown device 'tpu'"),
    (lambda: joined().save('nowhere', make=team[0]), 'make must be a function that makes a network'),
    (lambda: joined().save('nowhere', make=[nn.Linear]), 'one for each of the 3 members; got 1'),
    (lambda: joined().export('nowhere.h5', points), 'expected one of .pt2, .onnx'),
    (lambda: joined().export('nowhere.pt2', points[:1]), 'at least 2; got [1]'),
    (lambda: joined().export('nowhere.pt2', (points, points[:3])), 'at least 2; got [3, 6]'),
    *((lambda o=o: cycles(o), 'cycle must be') for o in (0, 2.5, NAN)),
    (lambda: cycles().ensemble(), 'finished cycles must be'),
    (lambda: keep(net=3), 'the teacher must be a module, or a function'),
    (lambda: keep(x=()), 'there are no inputs'),
    *((lambda o=o: keep(top=o), 'top') for o in (0, 3, 1.5)),
    (lambda: keep(batches=0), 'batches must be'),
    (lambda: keep(lambda x: 1e9*x), 'do not fit torch.float16'),
    (lambda: keep(lambda x: x*NAN, half=False), 'or are not finite'),
    (lambda: keep(lambda x: [x]), 'must return a tensor; got list'),
    (lambda: keep(lambda x: x[0], top=1), "the teacher's outputs must be (n, k)"),
    (lambda: teachers.SavedOutputs('nowhere'), "'nowhere' holds no outputs"),
    (lambda: of_many(how='votes'), 'expected one of logits, probabilities, kl'),
    (lambda: of_many(z), "the teachers' logits must be (L, 9, 3)"),
    (lambda: of_many(F*NAN), 'NaN'),
    *((lambda o=o, h=h: of_many(T=o, how=h), 'T must be') for o in (0, -1, NAN) for h in ('logits', 'probabilities', 'kl')),
    *((lambda o=o: decoupled(alpha=o), 'alpha must be ≥ 0') for o in (-1, NAN)),
    (lambda: decoupled(beta=torch.tensor(-1.)), 'beta must be ≥ 0'),
    (lambda: decoupled(weight=2), 'weight must be in [0, 1]'),
    (lambda: decoupled(z=z[:,:1], y=0*y, teacher=z[:,:1]), 'the number of classes must be'),
    (lambda: decoupled(z=wild[:,0,:3]), 'NaN'),
    (lambda: distill.born_again(None, 0), 'generations must be'),
    (lambda: distill.born_again(lambda *o: {'test': F}), "must return 'train'"),
    (lambda: ensemble.brier(z, far), 'labels must be'),
    (lambda: ensemble.brier(z[:3], y), 'logits must be (9, k)'),
    (lambda: ensemble.best_temperature(z*NAN, y), 'NaN'),
    (lambda: ensemble.error_correlation(F[:1], y), 'needs two'),
    (lambda: ensemble.error_correlation(F, column), 'labels must be (9)')]

@pytest.mark.parametrize('call, says', MEMBERS)
def test_members_say_what_was_expected(call, says):
    with pytest.raises(ValueError) as e: call()
    assert says in str(e.value) and '\n' not in str(e.value)
    assert not Path('nowhere').exists()
