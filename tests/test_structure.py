"""Dependencies point one way, there is one backbone, and no registered name hides another."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = ('tools', 'benchmarks', 'tests', 'configs')
BASE = {'ops_dcnv3', 'torch', 'numpy', 'mmengine', 'mmcv'}
ALLOWED = {
    'ops_dcnv3': {'torch'},
    'mmcv_custom': BASE | {'safetensors'},
    'mmdet_custom': BASE | {'mmcv_custom', 'mmdet'},
    'mmseg_custom': BASE | {'mmcv_custom', 'mmseg'},
}
FORBIDDEN = {'torchvision', 'timm'}


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob('*.py'))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(source: str) -> set[str]:
    """Top-level packages that a module imports anywhere, without relative imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition('.')[0])
    return names


def text_of(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    return [text for item in getattr(node, 'elts', []) for text in text_of(item)]


def registrations(source: str) -> Iterator[tuple[str, str]]:
    """(name, registry) of every ``@REGISTRY.register_module(...)`` on a class or function."""
    for node in ast.walk(ast.parse(source)):
        for call in getattr(node, 'decorator_list', []):
            function = call.func if isinstance(call, ast.Call) else call
            if not (isinstance(function, ast.Attribute) and function.attr == 'register_module'):
                continue
            given = [keyword.value for keyword in getattr(call, 'keywords', []) if keyword.arg == 'name']
            given += getattr(call, 'args', [])[:1]
            names = [text for value in given for text in text_of(value)] or [node.name]
            yield from ((name, ast.unparse(function.value)) for name in names)


def classes(source: str) -> list[str]:
    return [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]


def test_the_readers_of_source_code() -> None:
    source = (
        'import a.b\nfrom c.d import e\nfrom . import f\ndef g():\n    import h\n'
        '@R.register_module()\nclass I: ...\n@q.S.register_module(name=["J", "K"], force=True)\nclass L: ...\n'
    )
    assert imports(source) == {'a', 'c', 'h'}
    assert list(registrations(source)) == [('I', 'R'), ('J', 'q.S'), ('K', 'q.S')]
    assert classes(source) == ['I', 'L']


@pytest.mark.parametrize('package', ALLOWED)
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    allowed = ALLOWED[package] | {package} | sys.stdlib_module_names
    files = python_files(package)
    assert files
    found = {relative(path): imports(path.read_text()) - allowed for path in files}
    assert {path: names for path, names in found.items() if names} == {}


def test_nothing_imports_torchvision_or_timm() -> None:
    files = [ROOT / 'setup.py', *python_files(*ALLOWED, *PROGRAMS)]
    assert {relative(path) for path in files if imports(path.read_text()) & FORBIDDEN} == set()


def test_there_is_one_backbone() -> None:
    files = python_files(*ALLOWED, *PROGRAMS)
    assert [relative(path) for path in files if 'InternImage' in classes(path.read_text())] == [
        'mmcv_custom/internimage.py'
    ]


def test_no_name_is_registered_twice() -> None:
    found = [entry for path in python_files(*ALLOWED, 'tools') for entry in registrations(path.read_text())]
    assert ('InternImage', 'MODELS') in found
    assert [name for name, count in Counter(name for name, _ in found).items() if count > 1] == []


def test_the_backbone_is_in_the_root_registry() -> None:
    """A registry of mmdet or mmseg would hide it from the other."""
    for path in python_files('mmcv_custom'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or '').endswith('registry'):
                assert node.module == 'mmengine.registry', relative(path)


@pytest.mark.parametrize('page', sorted(ROOT.glob('*.md')) + sorted(ROOT.glob('docs/*.md')), ids=lambda path: path.name)
def test_pages_link_to_what_exists(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r'\]\(([^)#]+)\)', text)
    assert [link for link in links if '://' not in link and not (page.parent / link).exists()] == []
    assert re.findall(r'@[A-Z_]+@', text) == []  # placeholders
