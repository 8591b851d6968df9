"Package metadata, all of it read from `settings.ini` and `README.md`."
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

root = Path(__file__).parent
ini = ConfigParser(delimiters=['='])
ini.read(root/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']

CODE = re.compile(r'(```.*?```|`[^`\n]+`)', re.S)
RELATIVE = re.compile(r'(\]\(|(?:src|href)=")(?![a-z][a-z+.-]*:|[#/])([^)"\s]+)')
PICTURES = ('.gif', '.jpg', '.png', '.svg')
STATUSES = ['1 - Planning', '2 - Pre-Alpha', '3 - Alpha', '4 - Beta', '5 - Production/Stable', '6 - Mature',
            '7 - Inactive']
LICENSES = dict(apache2='Apache-2.0', mit='MIT', bsd3='BSD-3-Clause')

def absolute(link):
    "A relative link or picture of the README, as a page elsewhere can show it."
    before, path = link.groups()
    kind = 'raw' if path.endswith(PICTURES) else 'blob'
    return f"{before}{cfg['git_url']}/{kind}/{cfg['branch']}/{path}"

def long_description():
    "The README for the package index; code stays as it is."
    parts = CODE.split((root/'README.md').read_text(encoding='utf-8'))
    parts[::2] = [RELATIVE.sub(absolute, o) for o in parts[::2]]
    return ''.join(parts)

def extras():
    "Optional requirements: name → list, from the settings `NAME_requirements`."
    suffix = '_requirements'
    return {k.removesuffix(suffix): v.split() for k, v in cfg.items() if k.endswith(suffix)}

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'].split(),
    long_description=long_description(), long_description_content_type='text/markdown',
    author=cfg['author'], license_expression=LICENSES[cfg['license']], license_files=['LICENSE'],
    project_urls={'Documentation': f"{cfg['doc_host']}{cfg['doc_baseurl']}", 'Source': cfg['git_url'],
                  'Changelog': f"{cfg['git_url']}/blob/{cfg['branch']}/CHANGELOG.md"},
    packages=find_packages(include=[cfg['lib_path'], f"{cfg['lib_path']}.*"]),
    package_data={cfg['lib_path']: ['py.typed']}, zip_safe=False,
    python_requires=f">={cfg['min_python']}", install_requires=cfg['requirements'].split(), extras_require=extras(),
    entry_points={'console_scripts': cfg['console_scripts'].split(),
                  'nbdev': [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"]},
    classifiers=[f"Development Status :: {STATUSES[int(cfg['status'])-1]}",
                 f"Intended Audience :: {cfg['audience']}", f"Natural Language :: {cfg['language']}",
                 'Programming Language :: Python :: 3 :: Only',
                 *[f'Programming Language :: Python :: {o}' for o in cfg['pythons'].split()],
                 'Topic :: Scientific/Engineering :: Artificial Intelligence', 'Typing :: Typed'])
