"""Whether what is to be saved can be read again by the safe reader."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .contents import check_content
from .errors import CheckpointError, one_line
from .safe_loading import UNSAFE_LOAD_VARIABLE
from .unpickling import GlobalRefusedError, Storage, Unpickler


def require_readable(content: Any) -> None:
    """Checks that a checkpoint could be resumed, before it is written. The values of tensors are not looked at.

    With ``MM_INTERNIMAGE_UNSAFE_LOAD=1``, which also reads other files, nothing is checked.

    Args:
        content: What ``torch.save`` would get.

    Raises:
        CheckpointError: :func:`load_safely` would refuse the file. The text names the entry.
    """
    if os.environ.get(UNSAFE_LOAD_VARIABLE) == '1' or not (problem := _problem(content)):
        return
    place = ''
    while found := next(((name, part) for name, part in _entries(content) if _problem(part)), None):
        name, content = found
        place, problem = f'{place}.{name}'.lstrip('.'), _problem(content)
    raise CheckpointError(
        f'nothing was saved, as the file could not be resumed: {one_line(place) or "the checkpoint"} {problem}. Use '
        'numbers, texts, tensors, lists and dicts there; MessageHub.update_info(..., resumed=False) leaves a value out'
    )


class _Writer(pickle.Pickler):
    """Pickles as torch.save does, with a note in place of each storage, and of each tensor that can be read."""

    def persistent_id(self, value: Any) -> str | None:
        if torch.is_storage(value):
            return 'storage'
        if type(value) not in (Tensor, nn.Parameter) or value.layout is not torch.strided:
            return None
        odd = value.is_meta or value.is_quantized or value.is_nested or value.is_conj() or value.is_neg()
        return None if odd else 'tensor'


class _Reader(Unpickler):
    def persistent_load(self, pid: Any) -> Any:
        return torch.empty(0) if pid == 'tensor' else Storage(torch.UntypedStorage(0), torch.uint8, 0)


def _problem(value: Any) -> str:
    """Why a value could not be read again, to follow its name; empty if it could."""
    stream = io.BytesIO()
    try:
        _Writer(stream, protocol=2).dump(value)
    except Exception as error:  # whatever a class raises
        return f'cannot be pickled ({type(error).__name__}: {one_line(error)})'
    size = stream.tell()
    stream.seek(0)
    try:
        check_content(_Reader(stream, size).load(), size)
    except GlobalRefusedError as error:
        return f'needs the global {one_line(error)}, which the safe reader refuses'
    except Exception as error:  # as in load_safely
        return f'would be refused: {one_line(error)}'
    return ''


def _entries(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return value.items()
    return enumerate(value) if isinstance(value, list | tuple) else ()
