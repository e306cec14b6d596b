"""Checkpoints: read without running code they may hold, and loaded into the backbone whatever form they come in."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import sys
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import HistoryBuffer, print_log
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner import CheckpointLoader
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from .arch import PRESETS
from .conversion import BACKBONE_KEY, convert_checkpoint, some, unwrap, uses_dcnv4

UNSAFE_LOAD_VARIABLE = 'MM_INTERNIMAGE_UNSAFE_LOAD'
SAFETENSORS_META = 'mmengine_meta'  # where a .safetensors file keeps, as JSON, what MMEngine calls meta

# The methods that MMEngine's checkpoints refer to, as calls of getattr.
_SAVED_METHODS = {
    HistoryBuffer: ('current', 'max', 'mean', 'min'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}
_GAMMA = re.compile(r'\.gamma[12]$')
_STEM = 'patch_embed.conv2.weight'


class CheckpointError(RuntimeError):
    """A file cannot be read, or is not of the kind that is needed. The text is meant for the user."""


def load_safely(path: str | os.PathLike[str], map_location: str | torch.device | None = 'cpu') -> Any:
    """Reads a checkpoint without running code it may hold.

    Besides tensors and plain containers, a pickle may hold what MMEngine's runner saves (histories of scalars, numpy
    numbers) and the yacs config of the official classification training, which comes back as an ``OrderedDict``.

    Args:
        path: Local file, or http(s) URL, which is downloaded once into the cache of ``torch.hub``, under its last
            component as MMEngine does. ``.safetensors`` files are read as such, all others by ``torch.load``. What
            comes of the former is a bare state dict, or has ``meta`` beside it if tools/convert_checkpoint.py wrote it.
        map_location: Device of the tensors; ``None`` for the one they were saved from.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: The download failed, the file is damaged, or it needs arbitrary pickle. The latter is read only
            with the environment variable ``MM_INTERNIMAGE_UNSAFE_LOAD=1``.
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
    """Stands in for ``getattr``, which would lead a pickle from any object to any function."""
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
    """The local copy of a file, fetched once into the cache of ``torch.hub``, under the last component of its URL.

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


def load_converted(path: str | os.PathLike[str], map_location: str | torch.device | None = 'cpu') -> Any:
    """Like :func:`load_safely`; official detectors and segmentors come in MMEngine's form, which the log says.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: As :func:`load_safely` does, or the model cannot be converted
            (:func:`mmcv_custom.conversion.convert_state_dict`).
    """
    try:
        checkpoint, conversion = convert_checkpoint(load_safely(path, map_location))
    except ValueError as error:
        raise CheckpointError(f'cannot convert {path}: {error}') from error
    if conversion:
        level = logging.WARNING if conversion.unknown else logging.INFO
        print_log(f'converted {path}: {conversion.summary()}', 'current', level)
    return checkpoint


def register_safe_loader() -> None:
    """Makes MMEngine (``load_from``, ``resume``, ``init_cfg``) read local files and URLs by :func:`load_converted`.

    Its schemes other than http(s) (``open-mmlab://``, ``s3://`` ...) stay as they are.
    """

    # MMEngine logs "Loads checkpoint by <name without load_from_> backend".
    def load_from_safe(filename: str, map_location: str | torch.device | None = None) -> Any:
        return load_converted(filename, map_location)

    CheckpointLoader.register_scheme(prefixes=('', 'http://', 'https://'), loader=load_from_safe, force=True)


def backbone_state_dict(checkpoint: Mapping[str, Any], prefix: str | None = None) -> dict[str, Tensor]:
    """The backbone's weights under the backbone's own names.

    Understands official classification files (``model``, or ``module`` from DeepSpeed; the average that training keeps
    in ``model_ema`` is left alone), detectors and segmenters of MMCV and MMEngine (``state_dict``), bare state dicts,
    and the Hugging Face files, which call ``gamma1`` ``layer_scale1``. Classifier weights are dropped.

    Args:
        checkpoint: Content of the file.
        prefix: What stands before the backbone's names, such as ``'backbone.'``; ``None`` to find out.

    Raises:
        ValueError: There are no InternImage weights, or none under ``prefix``.
    """
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f'expected a mapping of names to tensors, got {type(checkpoint).__name__}')
    tensors = {key: value for key, value in unwrap(checkpoint).items() if isinstance(value, Tensor)}
    state = {key.removeprefix('module.'): value for key, value in tensors.items()}
    found = Counter(match['prefix'] for match in map(BACKBONE_KEY.match, state) if match)
    if not found:
        raise ValueError(f'it holds no InternImage weights; its keys begin with {some(list(state))}')
    if prefix is None:
        prefix = found.most_common(1)[0][0]
    elif prefix and not prefix.endswith('.'):
        prefix += '.'
    if prefix not in found:
        raise ValueError(f'no InternImage weights under prefix={prefix!r}, but under {some([repr(p) for p in found])}')
    names = {key: re.sub(r'\.layer_scale([12])$', r'.gamma\1', key.removeprefix(prefix)) for key in state}
    return {
        name: state[key]
        for key, name in names.items()
        if key.startswith(prefix) and not name.startswith(('head.', 'conv_head.', 'fc_norm.', 'clip_projector.'))
    }


class LoadReport(NamedTuple):
    """Names of the model's (``matched``, ``missing``, ``misshaped``) and of the file's (``unexpected``) tensors."""

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    misshaped: list[str]


def compare(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> LoadReport:
    """What of a model's own state dict another one would fill, by names and shapes.

    Counters of batches (``num_batches_tracked``) are never missing: older files lack them, and no result needs them.
    """
    return LoadReport(
        matched=[name for name in own if name in state and state[name].shape == own[name].shape],
        missing=[name for name in own if name not in state and not name.endswith('num_batches_tracked')],
        unexpected=[name for name in state if name not in own],
        misshaped=[name for name in own if name in state and state[name].shape != own[name].shape],
    )


def load_pretrained_backbone(
    model: nn.Module,
    checkpoint: str | os.PathLike[str],
    prefix: str | None = None,
    map_location: str | torch.device | None = 'cpu',
) -> LoadReport:
    """Loads a backbone's weights from any file that :func:`load_safely` and :func:`backbone_state_dict` understand.

    What does not fit is left as it was, and logged. Where the model has layer scale and the file none at all, its
    factors become one: the published tiny was trained without.

    Args:
        model: The backbone.
        checkpoint: File or http(s) URL.
        prefix: What stands before the backbone's names in the file; ``None`` to find out.
        map_location: Device on which the file is read.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: The file cannot be read, or holds less than half of the backbone's parameters, counted in
            numbers and not in tensors. The model is unchanged then.
    """
    try:
        state = backbone_state_dict(load_safely(checkpoint, map_location), prefix)
    except ValueError as error:
        raise CheckpointError(f'cannot load the backbone from {checkpoint}: {error}') from error
    own = model.state_dict()
    ones = {}
    if not any(map(_GAMMA.search, state)):
        ones = {name: torch.ones_like(tensor) for name, tensor in own.items() if _GAMMA.search(name)}
    report = compare({name: tensor for name, tensor in own.items() if name not in ones}, state)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if name not in ones}
    share = sum(sizes.get(name, 0) for name in report.matched) / sum(sizes.values())
    if share < 0.5:
        raise CheckpointError(
            f'{checkpoint} holds only {share:.0%} of the parameters of {type(model).__name__}: '
            f'{likely_cause(state, own, report)}'
        )
    model.load_state_dict({name: state[name] for name in report.matched} | ones, strict=False)
    summary = ', '.join(
        f'{len(names)} {what}' + (f' ({some(names)})' if names and what != 'matched' else '')
        for what, names in report._asdict().items()
    )
    note = '; it has no layer scale, whose factors are 1 now' if ones else ''
    level = logging.WARNING if report.missing or report.misshaped else logging.INFO
    print_log(f'loaded {share:.1%} of {type(model).__name__} from {checkpoint}: {summary}{note}', 'current', level)
    return report


def likely_cause(state: Mapping[str, Tensor], own: Mapping[str, Tensor], report: LoadReport) -> str:
    """In words, why a state dict does not fill a model, whose own is ``own``."""
    if uses_dcnv4(list(state)):
        return 'it is of DCNv4 (FlashInternImage), another operator'
    for name in report.misshaped:
        if name.endswith(_STEM):
            widths = f"its stem is {_width(state[name])}, the model's {_width(own[name])}"
            return f'{widths}; is it another variant of InternImage?'
    return f'{differences(state, own, report)}; was another architecture saved, or only a part?'


def differences(state: Mapping[str, Tensor], own: Mapping[str, Tensor], report: LoadReport) -> str:
    """In words, what keeps a state dict from being that of a model, whose own is ``own``; empty if nothing does."""
    found = {
        'missing': report.missing,
        'unknown to the model': report.unexpected,
        'of another shape': [
            f'{name}: {tuple(state[name].shape)} for {tuple(own[name].shape)}' for name in report.misshaped
        ],
    }
    return ', '.join(f'{len(names)} tensors are {what} ({some(names)})' for what, names in found.items() if names)


def _width(stem: Tensor) -> str:
    width = stem.shape[0]
    variants = [name for name, arch in PRESETS.items() if arch.channels == width]
    return f'{width} channels wide' + (f' ({variants[0]})' if variants else '')
