"""Loads the compiled libraries and describes what they hold.

``_cpu`` also holds the operator's schemas: without it nothing is registered. ``_cuda`` only adds kernels, and is loaded
only where torch can use a CUDA device.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from types import ModuleType
from typing import Any

import torch

from ._build import source_hash

BUILD_COMMAND = 'pip install --no-build-isolation -e .'
FORCE_REFERENCE_VARIABLE = 'DCNV3_FORCE_REFERENCE'

_errors: list[str] = []


def _load(name: str) -> ModuleType | None:
    if importlib.util.find_spec(f'{__package__}.{name}') is None:
        return None
    try:
        return importlib.import_module(f'{__package__}.{name}')
    except ImportError as error:  # built for another torch or machine: reported, and the reference is used
        _errors.append(f'{name}: {error}')
        return None


_cpu = _load('_cpu')
_cuda = _load('_cuda') if _cpu is not None and torch.cuda.is_available() else None
_forced_to_reference = os.environ.get(FORCE_REFERENCE_VARIABLE, '0') not in ('', '0')
_has_warned = False


def has_schemas() -> bool:
    """Whether the operators are registered with torch."""
    return _cpu is not None


def has_kernel(device_type: str) -> bool:
    """Whether tensors on this type of device use the compiled operator: it is there and the user did not decline it."""
    if _forced_to_reference:
        return False
    return (_cuda if device_type == 'cuda' else _cpu) is not None and device_type in ('cpu', 'cuda', 'meta')


def warn_about_fallback(device_type: str) -> None:
    """Warns once per process that the slow reference is used, unless the user asked for it."""
    global _has_warned
    if _has_warned or _forced_to_reference or torch.compiler.is_compiling():
        return
    _has_warned = True
    reason = f' ({"; ".join(_errors)})' if _errors else ''
    warnings.warn(
        f'ops_dcnv3 has no compiled kernel for {device_type} tensors{reason} and uses the much slower PyTorch '
        f'reference. To build it: {BUILD_COMMAND}',
        stacklevel=3,
    )


def describe() -> dict[str, Any]:
    """What is built and loaded, as JSON-able data.

    Returns:
        ``build_command``; ``source_hash`` of the sources present (None in a wheel without them); ``errors`` of loading;
        ``cpu``: None or path, source_hash, stale, isas (instruction sets it holds), isa (the one that is used here);
        ``cuda``: None or path, source_hash, stale, archs, loaded. Of a CUDA library that is not loaded only the path is
        known.
    """
    present_hash = source_hash()

    def common(module: ModuleType) -> dict[str, Any]:
        stale = present_hash is not None and module.source_hash != present_hash
        return {'path': module.__file__, 'source_hash': module.source_hash, 'stale': stale}

    cpu = None if _cpu is None else {**common(_cpu), 'isas': _cpu.isas.split(), 'isa': _cpu.isa}
    cuda: dict[str, Any] | None = None
    if _cuda is not None:
        cuda = {**common(_cuda), 'archs': _cuda.archs.split(), 'loaded': True}
    elif (spec := importlib.util.find_spec(f'{__package__}._cuda')) is not None:
        cuda = {'path': spec.origin, 'source_hash': None, 'stale': None, 'archs': None, 'loaded': False}
    return {
        'build_command': BUILD_COMMAND,
        'source_hash': present_hash,
        'errors': list(_errors),
        'cpu': cpu,
        'cuda': cuda,
    }
