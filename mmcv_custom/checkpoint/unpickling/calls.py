"""The classes and functions that a pickle may name, and what is called in their place."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

from .arrays import make_dtype, make_scalar
from .refusals import GlobalRefusedError, kind_of, require, require_supported
from .tensors import (
    DTYPES,
    STORAGE_TYPES,
    StorageType,
    make_device,
    make_size,
    rebuild_parameter,
    rebuild_tensor,
    rebuild_tensor_v2,
    rebuild_tensor_v3,
    unsupported,
)

# The methods that MMEngine's checkpoints refer to, as calls of getattr.
SAVED_METHODS = {
    HistoryBuffer: ('current', 'max', 'mean', 'min'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}
# The classes of dicts whose items a pickle may set.
DICTS = (dict, OrderedDict, Counter, defaultdict)
# What a defaultdict may make its values with. The names of int and str in protocol 2 are long and unicode.
_FACTORIES = {
    **{f'builtins.{kind.__name__}': kind for kind in (dict, float, int, list, set, str)},
    'builtins.long': int,
    'builtins.unicode': str,
}


class Global:
    """What a pickle holds in place of a class or function that it names."""

    __slots__ = ('call', 'name', 'owner')

    def __init__(self, name: str, call: Callable[..., Any] | None = None, owner: type | None = None) -> None:
        self.name, self.call, self.owner = name, call, owner


def find_global(name: str) -> Any:
    """What stands for a class or function.

    Raises:
        GlobalRefusedError: No checkpoint needs it, or it builds tensors that are not supported.
    """
    if name not in _GLOBALS:
        raise GlobalRefusedError(name, unsupported(name))
    return _GLOBALS[name]


def key(value: Any) -> Any:
    """A key of a dict. Tuples, and huge numbers, can be chosen so that all have one hash, which takes forever."""
    require_supported(
        type(value) in (str, np.str_, bytes, float, bool, type(None))
        or (type(value) is int and value.bit_length() <= 64)
        or isinstance(value, np.number),
        f'{kind_of(value)} is the key of a dict, which is not supported: use texts, or numbers of at most 64 bits',
    )
    return value


def _ordered_dict(pairs: Any = ()) -> OrderedDict:
    require(type(pairs) in (tuple, list), 'an OrderedDict must be made of pairs')
    require(all(type(pair) in (tuple, list) and len(pair) == 2 for pair in pairs), 'an OrderedDict needs pairs')
    return OrderedDict((key(name), value) for name, value in pairs)


def _counter(counts: Any = None) -> Counter:
    require(counts is None or type(counts) is dict, 'a Counter must be made of a dict')
    return Counter(counts)


def _set(members: Any = ()) -> set:
    require(type(members) in (tuple, list), 'a set must be made of a list')
    return set(map(key, members))


def _frozenset(members: Any = ()) -> frozenset:
    return frozenset(_set(members))


def _range(*limits: Any) -> range:
    proper = len(limits) == 3 and all(type(limit) is int and limit.bit_length() <= 62 for limit in limits)
    require(proper and limits[2] != 0, 'a range needs start, stop and step')
    return range(*limits)


def _default_dict(factory: Any = None) -> defaultdict:
    known = factory is None or (type(factory) is Global and factory.name in _FACTORIES)
    require_supported(known, 'it holds a defaultdict of another factory than a plain type: save it as dict(...)')
    return defaultdict(factory and _FACTORIES[factory.name])


def _config_dict(items: Any = ()) -> dict:
    """A plain dict in place of a ConfigDict of MMEngine, which would run code of its own for each value."""
    require(type(items) is dict or items == (), 'a ConfigDict must be made of a dict')
    return dict(items)


def _complex(real: Any, imaginary: Any) -> complex:
    require(type(real) is float and type(imaginary) is float, 'a complex number needs two floats')
    return complex(real, imaginary)


def _bytes(text: Any = '', encoding: Any = 'latin1') -> bytes:
    """Bytes, which protocol 2 writes as calls of ``_codecs.encode``, and empty ones as a call of ``bytes``."""
    require(type(text) is str and encoding in ('latin1', 'latin-1'), 'bytes must be written as latin1')
    return text.encode('latin1')


def _bytearray(data: Any = b'', encoding: Any = None) -> bytearray:
    return bytearray(data if type(data) is bytes and encoding is None else _bytes(data, encoding))


def _empty_array(kind: Any, shape: Any, code: Any) -> np.ndarray:
    require(kind is _GLOBALS['numpy.ndarray'], 'an array of numpy is of another class')
    return np.empty(0, np.uint8)  # its state fills it


def _history() -> HistoryBuffer:
    return HistoryBuffer.__new__(HistoryBuffer)  # its state fills it


def _saved_method(owner: Any, name: Any) -> Any:
    """Replaces ``getattr``, by which a pickle could reach any function from any object."""
    if type(owner) is Global and owner.owner and name in SAVED_METHODS[owner.owner]:
        return getattr(owner.owner, name)
    what = owner.name if type(owner) is Global else kind_of(owner)
    raise GlobalRefusedError(f'builtins.getattr called on {what}')


def _name(cls: type) -> str:
    return f'{cls.__module__}.{cls.__name__}'


_CALLS: dict[str, Callable[..., Any] | None] = {
    '_codecs.encode': _bytes,
    'argparse.Namespace': Namespace,  # its state fills it
    'builtins.bytearray': _bytearray,
    'builtins.bytes': _bytes,
    'builtins.complex': _complex,
    'builtins.frozenset': _frozenset,
    'builtins.getattr': _saved_method,
    'builtins.range': _range,
    'builtins.set': _set,
    'builtins.xrange': _range,  # as protocol 2 calls it
    'collections.Counter': _counter,
    'collections.OrderedDict': _ordered_dict,
    'collections.defaultdict': _default_dict,
    'mmengine.config.config.ConfigDict': _config_dict,
    'numpy.dtype': make_dtype,
    'numpy.ndarray': None,
    'torch.Size': make_size,
    'torch.device': make_device,
    'torch._utils._rebuild_parameter': rebuild_parameter,
    'torch._utils._rebuild_tensor': rebuild_tensor,
    'torch._utils._rebuild_tensor_v2': rebuild_tensor_v2,
    'torch._utils._rebuild_tensor_v3': rebuild_tensor_v3,
    'yacs.config.CfgNode': _ordered_dict,  # the config of the official classification training
    # The second name of each is that of numpy 2.
    **{f'{core}.multiarray._reconstruct': _empty_array for core in ('numpy.core', 'numpy._core')},
    **{f'{core}.multiarray.scalar': make_scalar for core in ('numpy.core', 'numpy._core')},
}
_GLOBALS: dict[str, Any] = {
    **{name: Global(name) for name in _FACTORIES},
    **{name: Global(name, call) for name, call in _CALLS.items()},
    _name(HistoryBuffer): Global(_name(HistoryBuffer), _history, HistoryBuffer),
    _name(OneCycleParamScheduler): Global(_name(OneCycleParamScheduler), owner=OneCycleParamScheduler),
    **{f'torch.{name}': StorageType(dtype) for name, dtype in STORAGE_TYPES.items()},
    **{str(dtype): dtype for dtype in DTYPES},
    'torch.storage.UntypedStorage': StorageType(STORAGE_TYPES['ByteStorage']),
}
