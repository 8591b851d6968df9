#!/usr/bin/env python3
"""Committed outputs are those of the committed code: `python tools/stamp.py` executes each notebook whose stamp is stale.

A stamp, in the notebook's metadata, is a digest of all that its outputs follow from: its own code, the modules of the package
that it imports (and those that these import), and the results it names. Comments, docstrings and `#|` options do not count.
`--list` says which notebooks are stale and executes none; `--keep` stamps without executing, for outputs known to be fresh.
"""
import ast
import io
import json
import os
import re
import subprocess
import sys
import tokenize
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEY = 'stamp'  # in settings.ini's allowed_metadata_keys, so that nbdev_clean leaves it
IMPORTED = re.compile(r'\bensemble_kd(?:\.(\w+)|\s+import\s+([\w, ]+))|^\s*from \.(\w*) import (.+)$', re.M)
NOT_RUN = re.compile(r'^#\|\s*(slow|cuda|notest|eval:\s*false)\b', re.M)

def notebooks():
    "All notebooks that are executed, in order."
    paths = sorted(o for o in (ROOT/'nbs').rglob('*.ipynb') if not any(p[0] in '._' for p in o.relative_to(ROOT).parts))
    return [o for o in paths if '- skip_exec: true' not in ''.join(read(o)['cells'][0]['source'])]

def read(path): return json.loads(path.read_text(encoding='utf-8'))

def docstrings(tree):
    "Lines of all docstrings."
    kinds = ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef
    nodes = [o for o in ast.walk(tree) if isinstance(o, kinds) and ast.get_docstring(o, clean=False) is not None]
    return {line for o in nodes for line in range(o.body[0].lineno, o.body[0].end_lineno + 1)}

def comments(code):
    "Where a comment starts, by line."
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return {o.start[0]: o.start[1] for o in tokens if o.type == tokenize.COMMENT}

def bare(code):
    "Code without comments, docstrings, blank lines and what follows a line; as it is where it is no plain Python."
    try: skip, at = docstrings(ast.parse(code)), comments(code)
    except (SyntaxError, tokenize.TokenError): return code
    lines = [line[:at.get(i)].rstrip() for i, line in enumerate(code.splitlines(), 1) if i not in skip]
    return '\n'.join(o for o in lines if o)

@cache
def module(name):
    "The bare code of a module of the package, None if there is none."
    path = ROOT/f'ensemble_kd/{name}.py'
    return bare(path.read_text(encoding='utf-8')) if path.is_file() else None

@cache
def imported(code):
    "Names of the package's modules that `code` imports."
    found = set()
    for dotted, names, relative, rest in IMPORTED.findall(code):
        if names: found |= {'__init__', *re.findall(r'\w+', names)}
        if rest and not relative: found |= {*re.findall(r'\w+', rest)}
        found |= {dotted, relative}
    return {o for o in found if o and module(o) is not None}

def closure(code):
    "All modules that `code` needs, directly or by others."
    seen, todo = set(), imported(code)
    while todo:
        seen |= todo
        todo = {o for name in todo for o in imported(module(name))} - seen
    return sorted(seen)

def results(code):
    "Files of results/ that `code` may read: every part of the name occurs in it, as names are often put together."
    if '/results' not in code and 'results/' not in code: return []
    return [o for o in sorted((ROOT/'results').iterdir()) if all(part in code for part in o.stem.split('_'))]

@cache
def content(path): return sha256(path.read_bytes()).digest()

def digest(nb):
    "What the outputs of the notebook `nb` follow from, as 16 hexadecimal digits."
    sources = [''.join(c['source']) for c in nb['cells'] if c['cell_type'] == 'code']
    code = '\n'.join(bare(o) for o in sources if not NOT_RUN.search(o))
    h = sha256(code.encode())
    for name in closure(code): h.update(f'{name}\n{module(name)}'.encode())
    for path in results(code): h.update(path.name.encode() + content(path))
    return h.hexdigest()[:16]

def stale(): return [o for o in notebooks() if read(o)['metadata'].get(KEY) != digest(read(o))]

def stamp(path):
    "Write the digest into the notebook."
    nb = read(path)
    nb['metadata'][KEY] = digest(nb)
    path.write_text(json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + '\n', encoding='utf-8')

def execute(path):
    "Run a notebook in place, as `nbdev_test` does, and keep its outputs."
    from execnb.nbio import read_nb, write_nb
    from execnb.shell import CaptureShell
    os.chdir(path.parent)
    nb, shell = read_nb(path.name), CaptureShell(path.name)
    shell.run_all(nb, exc_stop=True, preproc=lambda c: c.cell_type != 'code' or bool(NOT_RUN.search(c.source)))
    write_nb(nb, path.name)

def freshen(path):
    "Execute a notebook, by a process of its own and one thread, and stamp it."
    env = os.environ | dict(OMP_NUM_THREADS='1')
    subprocess.run([sys.executable, __file__, '--execute', str(path)], check=True, env=env)
    subprocess.run(['nbdev_clean', '--fname', str(path)], check=True)
    stamp(path)

def main():
    "Stamp what is stale."
    args = sys.argv[1:]
    if len(args) == 2 and args[0] == '--execute': return execute(Path(args[1]))
    if len(args) > 1 or {*args} - {'--list', '--keep'}: sys.exit(__doc__)
    found = stale()
    print(*(o.relative_to(ROOT) for o in found), sep='\n')
    if '--list' in args: sys.exit(bool(found))
    with ThreadPoolExecutor(os.cpu_count()) as pool: list(pool.map(stamp if '--keep' in args else freshen, found))

if __name__ == '__main__': main()
