"""The forms of checkpoints: where the weights are, and what wrappers add to their names."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from .errors import first_few

BACKBONE_KEY = re.compile(
    r'(?P<prefix>|.*?\.)(?:patch_embed\.(?:conv|norm)[12]|levels\.\d+\.(?:blocks|norm|post_norms|downsample))\.'
)
_COMPILED = re.compile(r'\b_orig_mod\.')


def mmengine_form(checkpoint: Any) -> dict[str, Any]:
    """Brings the content of a file into the form that MMEngine saves, without what wrappers add to the names.

    From ``meta`` descriptions of the dataset that mmdet and mmseg cannot use are dropped, and the log says so.

    Returns:
        ``meta``, ``state_dict``, and if the weights were in ``state_dict`` all else that the file holds. What stands
        beside ``model`` or ``module`` is the training state of other programs, which MMEngine would misread.

    Raises:
        ValueError: As :func:`named_tensors` does; there are no tensors; two of them would get one name without
            ``module.``, which MMEngine removes; or ``meta`` is not a dict.
    """
    state = unwrap(checkpoint)
    tensors = named_tensors(state)
    if not tensors:
        keys = f'its keys are {first_few(list(checkpoint))}' if state is checkpoint else 'its state dict is empty'
        raise ValueError(f'it holds no weights: {keys}')
    meta = {} if state is checkpoint else checkpoint.get('meta')
    if not isinstance(meta, Mapping | None):
        raise ValueError(f'its meta is of type {type(meta).__name__}, expected a dict')
    rest = checkpoint if state is checkpoint.get('state_dict') else {}
    prefix = _whole_prefix(list(tensors))
    tensors = renamed(tensors, lambda name: name.removeprefix(prefix))
    renamed(tensors, lambda name: name.removeprefix('module.'))  # as MMEngine does, and keeps the last of two
    return {**rest, 'meta': _usable_meta(meta or {}), 'state_dict': tensors}


def _usable_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """``meta`` with the dataset described as mmdet and mmseg expect it, or not at all."""
    meta = dict(meta)
    described = meta.get('dataset_meta', {})
    proper = {
        'dataset_meta': isinstance(described, Mapping) and _texts(described) and _texts(described.get('classes')),
        'CLASSES': _texts(meta.get('CLASSES')),  # of mmdet 2 and mmseg 0
    }
    for key in meta.keys() & {key for key in proper if not proper[key]}:
        print_log(f'dropped meta.{key} of the checkpoint, which names no classes', 'current', logging.WARNING)
        del meta[key]
    if 'CLASSES' in meta:
        meta.setdefault('PALETTE', None)  # mmseg reads it too
    return meta


def _texts(names: Any) -> bool:
    return names is None or (isinstance(names, list | tuple | Mapping) and all(isinstance(name, str) for name in names))


def named_tensors(state: Any) -> dict[str, Tensor]:
    """The tensors and extra states of a state dict; of names ``_orig_mod``, from ``torch.compile``, is left out.

    Raises:
        ValueError: ``state`` is no mapping, has a key that is no text, has two tensors that would get one name, or has
            a tensor whose values no model can take: on the meta device, sparse, quantized or nested.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f'expected a mapping of names to tensors, got {type(state).__name__}')
    if others := [repr(key) for key in state if not isinstance(key, str)]:
        raise ValueError(f'{len(others)} of its keys are no names of tensors: {first_few(others)}')
    kept = {name: value for name, value in state.items() if isinstance(value, Tensor) or is_extra_state(name)}
    kept = renamed(kept, lambda name: _COMPILED.sub('', name))
    tensors = ((name, value) for name, value in kept.items() if isinstance(value, Tensor))
    if empty := [f'{name}: {kind}' for name, tensor in tensors if (kind := _without_values(tensor))]:
        raise ValueError(f'{len(empty)} of its tensors hold no values to load ({first_few(empty)})')
    return kept


def under_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The part of a state dict whose names begin with a prefix, under the names without it.

    Raises:
        ValueError: There is none.
    """
    prefix = prefix.removesuffix('.') + '.'
    if part := {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}:
        return part
    depth = prefix.count('.')
    known = dict.fromkeys('.'.join(name.split('.')[:depth]) + '.' for name in state if name.count('.') >= depth)
    raise ValueError(f'it holds no tensors under prefix={prefix!r}, but under {first_few(list(map(repr, known)), 12)}')


def is_extra_state(name: str) -> bool:
    """Whether a name in a state dict is that of what a module's ``get_extra_state`` returned, no tensor perhaps."""
    return name.endswith('_extra_state')


def renamed(state: Mapping[str, Tensor], new_name: Callable[[str], str]) -> dict[str, Tensor]:
    """A state dict under new names.

    Raises:
        ValueError: Two tensors would get the same name, so one of them would be lost.
    """
    names = {name: new_name(name) for name in state}
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        old = [name for name in names if names[name] == twice[0]]
        raise ValueError(
            f'several tensors would be called {first_few(twice)} ({", ".join(old[:3])}): expected one of each'
        )
    return {names[name]: tensor for name, tensor in state.items()}


def _without_values(tensor: Tensor) -> str:
    """Why a model cannot take a tensor's values, although its shape may fit; empty if it can."""
    kinds = {
        'on the meta device': tensor.is_meta,
        'nested': tensor.is_nested,
        'sparse': tensor.layout is not torch.strided,
        'quantized': tensor.is_quantized,
    }
    return next((kind for kind, found in kinds.items() if found), '')


def _whole_prefix(names: list[str]) -> str:
    """What wrappers put before all names: PyTorch's ``module.`` and, before InternImage, ``model.`` (Lightning)."""
    wrappers = ('module.', 'model.') if any(map(BACKBONE_KEY.match, names)) else ('module.',)
    prefix = ''
    while found := next((wrapper for wrapper in wrappers if all(n.startswith(prefix + wrapper) for n in names)), ''):
        prefix += found
    return prefix


def unwrap(checkpoint: Any) -> Any:
    """The state dict in a checkpoint of MMCV, MMEngine, the official classification or DeepSpeed; or what was given."""
    if not isinstance(checkpoint, Mapping):
        return checkpoint
    candidates = (checkpoint.get(key) for key in ('state_dict', 'model', 'module'))
    return next((state for state in candidates if isinstance(state, Mapping)), checkpoint)
