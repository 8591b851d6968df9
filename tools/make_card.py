#!/usr/bin/env python3
"""Draw nbs/images/card.png, the picture that a link to the site shows elsewhere: `python tools/make_card.py`.

Data: results/film.json (ensembles of 1 to 10 networks) and results/theory_default.json (students of all ten).
"""
import json
from pathlib import Path
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
BLUE, ORANGE, INK, QUIET = '#0072b2', '#d55e00', '#1f2328', '#57606a'

def read(name): return json.loads((ROOT/f'results/{name}.json').read_text(encoding='utf-8'))['seeds']

def mean(values): return sum(values)/len(values)

def ensembles():
    "Error in % on single-view data of ensembles of 1 to 10 networks at the end of training, mean over seeds."
    return [100*mean(o) for o in zip(*(seed['error'][-1] for seed in read('film')))]

def student():
    "Error in % on single-view data of one student of ten networks, mean over seeds and students."
    return 100*mean([mean(seed['arms']['kd']['single_view']) for seed in read('theory_default')])

def words(fig):
    "The left half."
    fig.text(.055, .83, 'Why do ensembles work,\nand why does one student\nlearn what they know?', size=27, weight='bold', color=INK,
             va='top', linespacing=1.25)
    fig.text(.055, .48, 'The multi-view theory of deep learning,\nin code that runs and numbers\nthat were measured', size=20,
             color=QUIET, va='top', linespacing=1.35)
    fig.text(.055, .09, 'ensemble_kd', size=20, weight='bold', color=BLUE)

def main():
    fig = plt.figure(figsize=(12, 6.3), dpi=100, facecolor='w')
    words(fig)
    ax = fig.add_axes((.61, .15, .36, .68))
    K, error = range(1, 11), ensembles()
    ax.plot(K, [100*2.**-k for k in K], '--', color=QUIET, lw=2, label='tossed coins: $2^{-K}$')
    ax.plot(K, error, 'o-', color=BLUE, ms=10, lw=2.5, label='ensembles of K networks')
    ax.plot([1], [student()], '*', color=ORANGE, ms=26, label='one student of ten')
    ax.set_xlabel('networks', size=16)
    ax.set_title('error on data that show one view (%)', size=16, loc='left', color=INK)
    ax.set(xticks=(1, 2, 3, 5, 10), ylim=(-3, 55))
    ax.tick_params(labelsize=14)
    ax.spines[['top', 'right']].set_visible(False)
    ax.legend(fontsize=15, frameon=False)
    fig.savefig(ROOT/'nbs/images/card.png', metadata={'Software': None})

if __name__ == '__main__': main()
