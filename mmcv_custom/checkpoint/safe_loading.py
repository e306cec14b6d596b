"""Checkpoint files read without running code that they may hold."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import HistoryBuffer, print_log
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from safetensors import safe_open
from safetensors.torch import load_file

UNSAFE_LOAD_VARIABLE = 'MM_INTERNIMAGE_UNSAFE_LOAD'
SAFETENSORS_META = (
    'mmengine_meta'  # key in a .safetensors file's metadata that holds, as JSON, what MMEngine calls meta
)

# The methods that MMEngine's checkpoints refer to, as calls of getattr.
_SAVED_METHODS = {
    HistoryBuffer: ('current', 'max', 'mean', 'min'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read, or is not of the kind that is needed. The text is meant for the user."""


def load_safely(path: str | os.PathLike[str], map_location: str | torch.device | None = 'cpu') -> Any:
    """Reads a checkpoint without running code that it may hold.

    Besides tensors and plain containers, a pickle may hold what MMEngine's runner saves (histories of scalars, numpy
    numbers) and the yacs config of the official classification training, which comes back as an ``OrderedDict``.

    Args:
        path: Local file or http(s) URL. A URL is downloaded once, as :func:`download` does. ``.safetensors`` files give
            a bare state dict, or ``meta`` and ``state_dict`` if tools/convert_checkpoint.py wrote them; ``torch.load``
            reads all other files.
        map_location: Device of the tensors; ``None`` for the one they were saved from.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: The download failed, the file is damaged, or it needs arbitrary pickle, which is read only with
            the environment variable ``MM_INTERNIMAGE_UNSAFE_LOAD=1``.
    """
    path = os.fspath(path)
    file = download(path) if path.startswith(('http://', 'https://')) else Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f'no checkpoint at {path}: expected a local file or an http(s) URL')
    try:
        if file.suffix == '.safetensors':
            return _load_safetensors(file, str(map_location or 'cpu'))
        with torch.serialization.safe_globals(_allowed_globals()):
            return torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r'GLOBAL (\S+)', str(error))
        if refused or zipfile.is_zipfile(file):
            culprit = f'the global {refused[1]}' if refused else 'pickle instructions that torch does not read safely'
            return _load_unsafely(file, map_location, culprit, error)
        raise _unreadable(file, error) from error
    except Exception as error:  # damaged bytes surface as errors of almost any type
        raise _unreadable(file, error) from error


def _load_safetensors(file: Path, device: str) -> dict[str, Any]:
    with safe_open(file, 'pt') as content:
        metadata = content.metadata() or {}
    state = load_file(file, device)
    if SAFETENSORS_META not in metadata:
        return state
    return {'meta': json.loads(metadata[SAFETENSORS_META]), 'state_dict': state}


def _load_unsafely(file: Path, map_location: str | torch.device | None, culprit: str, error: Exception) -> Any:
    if os.environ.get(UNSAFE_LOAD_VARIABLE) != '1':
        raise CheckpointError(
            f'refused to read {file}: it needs {culprit}, and such a file can run any code while it is read. '
            f'If you trust where it comes from, set {UNSAFE_LOAD_VARIABLE}=1 and try again.'
        ) from error
    print_log(f'{UNSAFE_LOAD_VARIABLE}=1: reading {file}, which needs {culprit}', 'current', logging.WARNING)
    return torch.load(file, map_location=map_location, weights_only=False)


def _unreadable(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f'{file} ({file.stat().st_size} bytes) could not be read: {type(error).__name__}: {error}\n'
        'If it is damaged, by a download or a copy cut short perhaps, delete it and fetch it again.'
    )


def _saved_method(owner: Any, name: str) -> Any:
    """Replaces ``getattr``, by which a pickle could reach any function from any object."""
    for cls, names in _SAVED_METHODS.items():
        if owner is cls and name in names:
            return getattr(owner, name)
    raise pickle.UnpicklingError(f'GLOBAL builtins.getattr would be called on {owner!r} for {name!r}')


def _allowed_globals() -> list[Any]:
    numeric = '?' + np.typecodes['AllInteger'] + np.typecodes['Float']
    names = {
        'builtins.getattr': _saved_method,
        'numpy.ndarray': np.ndarray,
        'numpy.dtype': np.dtype,
        'yacs.config.CfgNode': OrderedDict,
        **{f'{cls.__module__}.{cls.__name__}': cls for cls in _SAVED_METHODS},
        **{f'{cls.__module__}.{cls.__name__}': cls for cls in {type(np.dtype(code)) for code in numeric}},
    }
    for core in ('numpy.core', 'numpy._core'):  # before and since numpy 2
        names[f'{core}.multiarray._reconstruct'] = np.empty(0).__reduce__()[0]
        names[f'{core}.multiarray.scalar'] = np.float64(0).__reduce__()[0]
    return [(value, name) for name, value in names.items()]


def download(url: str) -> Path:
    """Downloads a file once into the cache of ``torch.hub``, named after its URL's last component as MMEngine does.

    Returns:
        The local file.

    Raises:
        CheckpointError: The download failed.
    """
    file = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(url).path).name)
    if is_main_process():
        _fetch(url, file)
    barrier()
    _fetch(url, file)  # for the machines that do not see the first one's disk
    return file


def _fetch(url: str, file: Path) -> None:
    if file.exists():
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), progress=sys.stderr.isatty())
    except OSError as error:  # urllib's errors are OSErrors too
        raise CheckpointError(f'could not download {url} to {file}: {error}') from error
