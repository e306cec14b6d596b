"""What a checkpoint may hold, and what in it would act later: configs are code, and paths name files to delete."""

from __future__ import annotations

import logging
import os
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from torch import Tensor, nn

from .errors import one_line
from .unpickling import DICTS, SAVED_METHODS, kind_of, require, require_supported, unfolded_limit

CONFIG_KEYS = ('cfg', 'config')
TEXT_SUFFIX = '_text'
MAX_DEPTH = 100
MAX_NAME = 500
_ATOMS = {type(None), bool, int, float, complex, torch.dtype, torch.device}
_TEXTS = {str, bytes, bytearray, np.str_}
_METHODS = {getattr(owner, name) for owner, names in SAVED_METHODS.items() for name in names}


def check_content(content: Any, file_size: int) -> None:
    """Checks that the content is made of what checkpoints are made of.

    An object may stand in several places, and a kilobyte of lists that share their members can become as large as the
    memory once something goes through it. So the sum over all places must be in proportion to the file. An object must
    not contain itself either, nor be nested deeper than other code can go down.

    Args:
        content: Content of the file.
        file_size: Its size in bytes.

    Raises:
        UnsupportedError: It holds values of other types, or is nested or repeated too much.
        pickle.UnpicklingError: It is damaged or forged.
    """
    _weigh(content, limit=unfolded_limit(file_size), depth=0, known={})


def _weigh(value: Any, limit: int, depth: int, known: dict[int, int]) -> int:
    """Roughly the bytes of a value, with everything counted as often as it is reached. ``known`` holds what was met."""
    kind = type(value)
    if kind in _ATOMS or (kind.__module__ == 'numpy' and isinstance(value, np.number | np.bool_)):
        return 1
    if kind in _TEXTS:
        return 1 + len(value)
    if id(value) not in known:
        require_supported(depth < MAX_DEPTH, f'it is nested deeper than {MAX_DEPTH} levels: save it flatter')
        known[id(value)] = -1
        weight = 1 + _weight_itself(value)
        for part in _parts(value):
            weight += _weigh(part, limit, depth + 1, known)
            require_supported(weight <= limit, f'its values repeat to more than {limit} bytes: save each once')
        known[id(value)] = weight
    require_supported(known[id(value)] >= 0, f'it holds {kind_of(value)} that contains itself: save it without that')
    return known[id(value)]


def _weight_itself(value: Any) -> int:
    if type(value) in (Tensor, nn.Parameter):
        truth = value.dtype is torch.bool and value.numel() and not value.is_meta
        require(not truth or int(value.detach().view(torch.uint8).max()) <= 1, 'a truth value is neither 0 nor 1')
        return value.numel() * value.element_size()
    if type(value) is range:
        return 8 * len(value)  # as much as a list of it
    return value.nbytes if type(value) is np.ndarray else 0


def _parts(value: Any) -> Iterable[Any]:
    kind = type(value)
    if kind in DICTS:
        for key, part in value.items():
            tensor = isinstance(part, Tensor) and type(key) is str
            printable = not tensor or (key.isprintable() and len(key) <= MAX_NAME)
            require_supported(printable, f'a tensor has no printable name of at most {MAX_NAME} characters: rename it')
            yield key
            yield part
        yield _versions(value)
    elif kind in (list, tuple, set, frozenset, torch.Size):
        yield from value
    elif kind is HistoryBuffer:
        require(len(vars(value)) > 0, 'a HistoryBuffer is empty')
        yield from vars(value).values()
    elif kind is Namespace:
        yield vars(value)
    else:
        plain = kind in (Tensor, nn.Parameter, np.ndarray, range) or value in _METHODS
        require_supported(plain, f'it holds {kind_of(value)}, which is not supported: save it without that')


def _versions(mapping: Any) -> Any:
    """The versions of the modules that ``state_dict()`` attaches to a mapping; layers compare them with numbers."""
    versions = getattr(mapping, '_metadata', None)
    require(versions is None or type(versions) in (dict, OrderedDict), 'the versions of the modules are no mapping')
    for module in (versions or {}).values():
        require(type(module) is dict and type(module.get('version', 1)) is int, 'a module has a forged version')
    return versions


def configs_to_text(content: Any) -> None:
    """Renames the configs in a checkpoint to ``config_text`` and ``cfg_text``, so that nothing runs them.

    MMEngine runs ``meta['config']`` when it resumes, and its inferencers run ``message_hub['runtime_info']['cfg']`` and
    ``meta['cfg']`` if they are given no config.

    Args:
        content: Content of the file; changed in place.
    """
    for mapping in (_mapping(content, 'meta'), _runtime_info(content)):
        for key in CONFIG_KEYS:
            if key in mapping:
                mapping[key + TEXT_SUFFIX] = mapping.pop(key)


def drop_foreign_paths(content: Any, file: Path) -> None:
    """Drops the paths in a checkpoint that MMEngine would delete, unless they are of files beside it.

    - ``CheckpointHook`` deletes the file or folder ``runtime_info['best_ckpt']`` when it has found a better one. It
      stays only if it is called like a best checkpoint and lies beside the file, as it does after a move of both.
    - It deletes the files of ``runtime_info['keep_ckpt_ids']`` one by one as it saves new ones. Only numbers stay, and
      only those of files that lie beside the checkpoint.

    Args:
        content: Content of the file; changed in place.
        file: Where it comes from.
    """
    info = _runtime_info(content)
    for key in [key for key in info if isinstance(key, str) and key.startswith('best_ckpt')]:
        beside = file.parent / Path(str(info[key])).name
        if _is_best_checkpoint(str(beside), file) and os.path.isfile(beside):  # which copes with any name
            info[key] = str(beside)  # the work folder may have been moved
        elif not _is_best_checkpoint(info[key], file):
            text = one_line(info.pop(key))
            print_log(f'{file}: forgets that {key} is {text}, which is not beside it', 'current', logging.WARNING)
    if 'keep_ckpt_ids' in info:
        kept = info.pop('keep_ckpt_ids')
        if type(kept) is list and all(type(step) is int and step >= 0 for step in kept):
            info['keep_ckpt_ids'] = [step for step in kept if _is_saved(step, file)]
        else:
            print_log(f'{file}: forgets that keep_ckpt_ids is {one_line(kept)}', 'current', logging.WARNING)


def _is_saved(step: int, file: Path) -> bool:
    return any((file.parent / f'{unit}_{step}.pth').is_file() for unit in ('iter', 'epoch'))


def _runtime_info(content: Any) -> MutableMapping:
    return _mapping(_mapping(content, 'message_hub'), 'runtime_info')


def _mapping(content: Any, key: str) -> MutableMapping:
    value = content.get(key) if isinstance(content, MutableMapping) else None
    return value if isinstance(value, MutableMapping) else {}


def _is_best_checkpoint(path: Any, file: Path) -> bool:
    if not isinstance(path, str) or not path.isprintable() or not Path(path).match('best_*.pth'):
        return path is None
    try:
        return Path(path).parent.resolve() == file.parent.resolve()
    except (OSError, RuntimeError):  # a name that is too long, links in a circle
        return False
