"""Checkpoint files read without running code that they may hold."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from mmengine.logging import print_log
from safetensors import safe_open
from safetensors.torch import load_file

from .archive import MapLocation, read_archive
from .contents import check_content, configs_to_text, drop_foreign_paths
from .download import download
from .errors import CheckpointError, one_line, redacted
from .unpickling import GlobalRefusedError, UnsupportedError

__all__ = ['SAFETENSORS_META', 'UNSAFE_LOAD_VARIABLE', 'CheckpointError', 'download', 'load_safely']

# torch and the system have no error type of their own for it.
_NO_MEMORY = re.compile("(can't|[Cc]annot) allocate memory|not enough memory")
UNSAFE_LOAD_VARIABLE = 'MM_INTERNIMAGE_UNSAFE_LOAD'
# The key in a .safetensors file's metadata that holds, as JSON, what MMEngine calls meta.
SAFETENSORS_META = 'mmengine_meta'


def load_safely(path: str | os.PathLike[str], map_location: MapLocation = 'cpu') -> Any:
    """Reads a checkpoint without running code that it may hold.

    Besides tensors and plain containers, a pickle may hold what MMEngine's runner saves (histories of scalars, numpy
    numbers) and the yacs config of the official classification training, which comes back as an ``OrderedDict``.

    Configs in ``meta`` and ``message_hub``, which MMEngine would run, are renamed to ``config_text`` and ``cfg_text``
    (:func:`mmcv_custom.checkpoint.contents.configs_to_text`). Paths of other folders, which MMEngine would delete, are
    dropped (:func:`mmcv_custom.checkpoint.contents.drop_foreign_paths`).

    Args:
        path: Local file or http(s) URL. A URL is downloaded once, as :func:`download` does. ``.safetensors`` files give
            a bare state dict, or ``meta`` and ``state_dict`` if tools/convert_checkpoint.py wrote them; all other files
            must be of ``torch.save``.
        map_location: Device of the tensors; ``None`` for the one they were saved from.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: The download failed, the file is damaged or holds what is not supported, or it needs arbitrary
            pickle. The latter is read only with the environment variable ``MM_INTERNIMAGE_UNSAFE_LOAD=1``, and then
            configs stay as they are, too (paths of other folders are still dropped).
    """
    path = os.fsdecode(path)
    file = download(path) if path.startswith(('http://', 'https://')) else _local(path)
    trusted = os.environ.get(UNSAFE_LOAD_VARIABLE) == '1'
    try:
        if file.suffix == '.safetensors':
            content = _load_safetensors(file, map_location)
        else:
            content = read_archive(file, map_location)
        check_content(content, file.stat().st_size)
    except GlobalRefusedError as error:
        if not trusted:
            raise CheckpointError(
                f'refused to read {file}: {one_line(error.reason)}. If you trust where it comes from, set '
                f'{UNSAFE_LOAD_VARIABLE}=1 and try again: torch then reads it, and runs whatever code it holds.'
            ) from error
        culprit = one_line(error)
        print_log(f'{UNSAFE_LOAD_VARIABLE}=1: reading {file}, which needs {culprit}', 'current', logging.WARNING)
        content = torch.load(file, map_location=map_location, weights_only=False)
    except UnsupportedError as error:
        raise CheckpointError(f'cannot read {file}: {one_line(error)}') from error
    except Exception as error:  # damaged bytes surface as errors of almost any type
        reason = one_line(error)
        if isinstance(error, MemoryError) or _NO_MEMORY.search(reason):
            raise CheckpointError(
                f'there is not enough memory to read {file} ({file.stat().st_size} bytes): close other programs, or '
                'use a machine with more'
            ) from error
        if type(error) is not UnpicklingError:
            reason = f'{type(error).__name__}: {reason}'
        raise CheckpointError(
            f'{file} ({file.stat().st_size} bytes) could not be read: {reason}. '
            'If it is damaged, by a download or a copy cut short perhaps, delete it and fetch it again.'
        ) from error
    if not trusted:
        configs_to_text(content)
    drop_foreign_paths(content, file)
    return content


def _local(path: str) -> Path:
    try:
        file = Path(path).expanduser()
        if file.is_file():
            return file
    except (OSError, RuntimeError):  # a name that is too long, a folder that is locked, a user that does not exist
        pass
    raise FileNotFoundError(f'no checkpoint at {redacted(path)}: expected a local file or an http(s) URL')


def _load_safetensors(file: Path, map_location: MapLocation) -> dict[str, Any]:
    device = str(map_location) if isinstance(map_location, str | torch.device) else 'cpu'
    with safe_open(file, 'pt') as content:
        metadata = content.metadata() or {}
    state = load_file(file, device)
    if SAFETENSORS_META not in metadata:
        return state
    return {'meta': json.loads(metadata[SAFETENSORS_META]), 'state_dict': state}
