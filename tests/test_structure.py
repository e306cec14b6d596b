"""Dependencies point one way, there is one backbone, and no registered name hides another."""

from __future__ import annotations

import ast
import graphlib
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

PROGRAMS = ('tools', 'benchmarks', 'tests', 'configs')
BASE = {'ops_dcnv3', 'torch', 'numpy', 'mmengine', 'mmcv'}
ALLOWED = {
    'ops_dcnv3': {'torch'},
    'mmcv_custom': BASE | {'safetensors', 'PIL'},
    'mmdet_custom': BASE | {'mmcv_custom', 'mmdet', 'pycocotools'},
    'mmseg_custom': BASE | {'mmcv_custom', 'mmseg'},
}
# The parts of mmcv_custom, sub-packages and single modules, and the parts that each may import.
PARTS = {
    'errors': set(),
    'texts': set(),
    'datasets': {'errors', 'texts'},
    'checkpoint': {'errors'},
    'models': {'checkpoint'},
    'engine': {'checkpoint', 'errors', 'models'},
    'registry': set(),
    'mmengine_setup': {'checkpoint', 'registry'},
    'zoo': set(),
    'doctor': set(),
    'old_configs': {'datasets', 'errors', 'models', 'zoo'},
    'cli': {'checkpoint', 'datasets', 'engine', 'errors', 'old_configs', 'texts'},
    'new_config': {'cli', 'datasets', 'errors', 'zoo'},
    '__init__': {'checkpoint', 'engine', 'mmengine_setup', 'models'},
    '__main__': {'cli', 'zoo'},
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


def module_of(path: Path) -> tuple[str, ...]:
    """``mmcv_custom/models/arch.py`` -> ('mmcv_custom', 'models', 'arch')."""
    return path.relative_to(ROOT).with_suffix('').parts


def imports_within(module: tuple[str, ...], source: str) -> set[tuple[str, ...]]:
    """Modules and packages of its own package that a module imports, by relative or absolute imports."""
    names: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            origin = module[: -node.level] if node.level else ()
            origin += tuple(node.module.split('.')) if node.module else ()
            names.update({origin, *((*origin, alias.name) for alias in node.names)})
        elif isinstance(node, ast.Import):
            names.update(tuple(alias.name.split('.')) for alias in node.names)
    return {name for name in names if len(name) > 1 and name[0] == module[0]}


def import_graph(package: str) -> dict[tuple[str, ...], set[tuple[str, ...]]]:
    """The modules of a package and what each imports; a package stands for its ``__init__``."""
    modules = {module_of(path): path for path in python_files(package)}
    graph = {}
    for module, path in modules.items():
        found = imports_within(module, path.read_text())
        graph[module] = {name if name in modules else (*name, '__init__') for name in found} & modules.keys() - {module}
    return graph


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
    relative_imports = 'from . import f\nfrom ..k import l\nimport p.m\nfrom p.n.o import q\nimport r.s\n'
    assert imports_within(('p', 'x', 'y'), relative_imports) == {
        *(('p', 'x'), ('p', 'x', 'f'), ('p', 'k'), ('p', 'k', 'l'), ('p', 'm'), ('p', 'n', 'o'), ('p', 'n', 'o', 'q'))
    }
    assert list(registrations(source)) == [('I', 'R'), ('J', 'q.S'), ('K', 'q.S')]
    assert classes(source) == ['I', 'L']


@pytest.mark.parametrize('package', ALLOWED)
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    allowed = ALLOWED[package] | {package} | sys.stdlib_module_names
    files = python_files(package)
    assert files
    found = {relative(path): imports(path.read_text()) - allowed for path in files}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize('package', ALLOWED)
def test_no_modules_import_each_other(package: str) -> None:
    graph = import_graph(package)
    assert any(graph.values())
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_parts_of_mmcv_custom_import_only_what_lies_below_them() -> None:
    graphlib.TopologicalSorter(PARTS).prepare()
    found: dict[str, set[str]] = {part: set() for part in PARTS}
    for module, imported in import_graph('mmcv_custom').items():
        found[module[1]] |= {name[1] for name in imported} - {module[1]}
    assert {part: names - PARTS[part] for part, names in found.items() if names - PARTS[part]} == {}


def test_nothing_imports_torchvision_or_timm() -> None:
    files = [ROOT / 'setup.py', *python_files(*ALLOWED, *PROGRAMS)]
    assert {relative(path) for path in files if imports(path.read_text()) & FORBIDDEN} == set()


def test_there_is_one_backbone() -> None:
    files = python_files(*ALLOWED, *PROGRAMS)
    assert [relative(path) for path in files if 'InternImage' in classes(path.read_text())] == [
        'mmcv_custom/models/internimage.py'
    ]


def test_no_name_is_registered_twice() -> None:
    found = [entry for path in python_files(*ALLOWED, 'tools') for entry in registrations(path.read_text())]
    assert ('InternImage', 'MODELS') in found
    assert [name for name, count in Counter(name for name, _ in found).items() if count > 1] == []


def test_the_backbone_is_in_the_root_registry() -> None:
    """A registry of mmdet or mmseg would hide it from the other."""
    for path in python_files('mmcv_custom'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or '').endswith('registry'):
                assert node.module == 'mmengine.registry', relative(path)


@pytest.mark.parametrize('page', sorted(ROOT.glob('*.md')) + sorted(ROOT.glob('docs/*.md')), ids=lambda path: path.name)
def test_pages_link_to_what_exists(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r'\]\(([^)#]+)\)', text)
    assert [link for link in links if '://' not in link and not (page.parent / link).exists()] == []
    assert re.findall(r'@[A-Z_]+@', text) == []  # placeholders
