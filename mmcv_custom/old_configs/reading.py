"""Reads configs of mmdet 2 and mmseg 0, also where their bases are missing."""

from __future__ import annotations

import ast
import os
import runpy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from mmengine.config import Config

from .. import zoo
from ..errors import UserError

# Keys that only configs of mmdet 2 and mmseg 0 have, and keys that only newer ones have.
OLD_KEYS = {
    *('checkpoint_config', 'evaluation', 'fp16', 'img_norm_cfg', 'log_config', 'lr_config', 'optimizer'),
    *('optimizer_config', 'runner', 'total_epochs', 'total_iters', 'workflow'),
}
MAPPINGS = (
    *('model', 'data', 'optimizer', 'optimizer_config', 'lr_config', 'runner', 'evaluation', 'img_norm_cfg'),
    *('checkpoint_config', 'log_config', 'fp16', 'auto_scale_lr'),
)
NEW_KEYS = {'train_dataloader', 'val_dataloader', 'test_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg'}


@dataclass(frozen=True)
class OldConfig:
    """A config of mmdet 2 or mmseg 0.

    Attributes:
        path: The file.
        content: What it and its bases define.
        missing: Its bases, and theirs, that do not exist.
    """

    path: str
    content: Mapping[str, Any]
    missing: tuple[str, ...]


def old_config_hint(path: str, keys: Iterable[str] | None = None) -> str:
    """One line that says that a config is one of mmdet 2 or mmseg 0, and how to convert it; ``''`` if it is none.

    Args:
        path: The file.
        keys: What the config defines, if it could be read with its bases; default what the file itself defines. Then
            it is not run.
    """
    bases: list[str] = []
    if keys is None:
        try:
            keys, bases = _assigned(Path(path).read_text(encoding='utf-8'))
        except (OSError, SyntaxError, ValueError):
            return ''
    found = sorted(OLD_KEYS & set(keys))
    official = {str(model.published.get('Config')) for model in zoo.models().values()} if bases else set()
    if set(keys) & NEW_KEYS or not (found or official & {os.path.basename(base) for base in bases}):
        return ''
    shown = f' (it has {", ".join(found[:3])})' if found else ''
    return (
        f'{path} is a config of mmdet 2 or mmseg 0{shown}; `python tools/new_config.py --from {path}` writes one for '
        'mmdet 3 or mmseg 1'
    )


def _assigned(source: str) -> tuple[set[str], list[str]]:
    """The names that a file assigns at its top level, and its bases."""
    names, bases = set(), []
    for node in ast.parse(source).body:
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Name):
                names.add(target.id)
                if target.id == '_base_':
                    bases = [item.value for item in ast.walk(node) if isinstance(item, ast.Constant)]
    return names, list(map(str, bases))


def read_old_config(path: str) -> OldConfig:
    """Runs a config of mmdet 2 or mmseg 0 and those of its bases that exist.

    Raises:
        UserError: It cannot be run, or is no such config.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f'--from {path}: there is no such file')
    try:
        new = sorted(_assigned(file.read_text(encoding='utf-8'))[0] & NEW_KEYS)
    except (OSError, SyntaxError, ValueError) as problem:
        raise UserError(f'--from {path}: cannot read it: {type(problem).__name__}: {problem}') from problem
    if new:
        raise UserError(
            f'--from {path}: this is a config of mmdet 3 or mmseg 1, which have {new[0]}; --from takes those of '
            'mmdet 2 and mmseg 0'
        )
    missing: list[str] = []
    content = _read(file, missing, ())
    if not set(content) & (OLD_KEYS | {'model', 'data'}) and not missing:
        raise UserError(f'--from {path}: this is no config of mmdet 2 or mmseg 0: it has neither model nor data')
    for key in MAPPINGS:
        if not isinstance(content.get(key) or {}, Mapping):
            raise UserError(f'--from {path}: {key} must be a dict, got {content[key]!r}')
    return OldConfig(path, content, tuple(missing))


def _read(path: Path, missing: list[str], below: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in below:
        raise UserError(f'--from {path}: it is its own base')
    try:
        found = runpy.run_path(str(path))
    except (Exception, SystemExit) as problem:  # a config is a program: it can do anything
        reason = ' '.join(f'{type(problem).__name__}: {problem}'.split())
        raise UserError(f'--from {path}: cannot run it: {reason}') from problem
    bases = found.get('_base_', [])
    merged = Config({})
    for base in [bases] if isinstance(bases, str) else bases:
        file = path.parent / base
        if file.is_file():
            merged.merge_from_dict(_read(file, missing, (*below, path.resolve())))
        else:
            missing.append(base)
    no_value = (FunctionType, ModuleType, type)
    own = {key: value for key, value in found.items() if key[0] != '_' and not isinstance(value, no_value)}
    try:
        merged.merge_from_dict(own)
    except (AssertionError, IndexError, KeyError, TypeError) as problem:
        reason = ' '.join(f'{type(problem).__name__}: {problem}'.split())
        raise UserError(f'--from {path}: it does not fit its bases: {reason[:300]}') from problem
    return _without_delete(merged.to_dict())


def _without_delete(node: Any) -> Any:
    """A copy without ``_delete_``, which stays in dicts that replace nothing."""
    if isinstance(node, Mapping):
        return {key: _without_delete(value) for key, value in node.items() if key != '_delete_'}
    return [_without_delete(item) for item in node] if isinstance(node, list) else node
