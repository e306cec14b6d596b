"""An unpickler for which a pickle is data: it builds tensors, arrays and plain containers, and calls nothing else.

A pickle is a program for a stack machine. Here it has only the instructions that ``torch.save`` writes, and what it
calls are not the functions that it names but the ones below, which check their arguments. So neither a lie about sizes
nor a forged state reaches torch, numpy or MMEngine.
"""

from __future__ import annotations

import math
import pickle
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from torch import Tensor, nn

STORAGE_TYPES = {
    'DoubleStorage': torch.float64,
    'FloatStorage': torch.float32,
    'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16,
    'LongStorage': torch.int64,
    'IntStorage': torch.int32,
    'ShortStorage': torch.int16,
    'CharStorage': torch.int8,
    'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
    'ComplexDoubleStorage': torch.complex128,
    'ComplexFloatStorage': torch.complex64,
}

# Dtypes without a class of storages. Others (quantized, bits, packed) are not for plain tensors, and crash torch.
_OTHER_DTYPES = (
    *(torch.uint16, torch.uint32, torch.uint64, torch.complex32),
    *(torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz),
)

# The methods that MMEngine's checkpoints refer to, as calls of getattr.
SAVED_METHODS = {
    HistoryBuffer: ('current', 'max', 'mean', 'min'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}
MAX_DIMS = 32
_NUMBERS = {'b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8'}  # as numpy pickles its dtypes


class GlobalRefusedError(pickle.UnpicklingError):
    """A pickle names a class or function that no checkpoint needs. The text begins with its name."""


class Global:
    """What a pickle holds in place of a class or function that it names."""

    __slots__ = ('call', 'name', 'owner')

    def __init__(self, name: str, call: Callable[..., Any] | None = None, owner: type | None = None) -> None:
        self.name, self.call, self.owner = name, call, owner


class StorageType:
    """What a pickle holds in place of a class of storages."""

    __slots__ = ('dtype',)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class Storage:
    """The memory of tensors: ``nbytes`` bytes that begin ``start`` elements of ``dtype`` after the beginning."""

    __slots__ = ('dtype', 'memory', 'nbytes', 'start')

    def __init__(self, memory: torch.UntypedStorage, dtype: torch.dtype, nbytes: int, start: int = 0) -> None:
        self.memory, self.dtype, self.nbytes, self.start = memory, dtype, nbytes, start


def require(condition: bool, lie: str) -> None:
    """Raises :class:`pickle.UnpicklingError` with the text unless the condition holds."""
    if not condition:
        raise pickle.UnpicklingError(lie)


def is_count(value: object) -> bool:
    """Whether a value from a file can be a size or an index. ``True`` is not one, and numbers end at 2^63."""
    return type(value) is int and 0 <= value < 2**63


# --- what a pickle may call -------------------------------------------------------------------------------------------


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None) -> Tensor:
    require(type(storage) is Storage, 'a tensor has no storage')
    dtype = storage.dtype if dtype is None else dtype
    require(type(dtype) is torch.dtype and dtype.itemsize > 0, 'a tensor has no dtype')
    require(type(size) in (tuple, torch.Size) and type(stride) is tuple, 'the shape of a tensor is no tuple')
    require(len(size) == len(stride) <= MAX_DIMS, f'a tensor has {len(size)} sizes and {len(stride)} strides')
    require(all(map(is_count, (offset, *size, *stride))), 'offset, sizes and strides of a tensor must be counts')
    if 0 in size:
        _check_empty(size)
        return torch.empty(size, dtype=dtype, device=storage.memory.device)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    fits = max(last + 1, math.prod(size)) * dtype.itemsize <= storage.nbytes
    require(fits, f'a tensor is larger than its {storage.nbytes} bytes')
    tensor = torch.empty(0, dtype=dtype, device=storage.memory.device)
    return tensor.set_(storage.memory, storage.start + offset, size, stride)


def _check_empty(shape: tuple[int, ...]) -> None:
    require(math.prod(length or 1 for length in shape) < 2**31, 'the shape of something without numbers is too large')


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    return _tensor(storage, offset, size, stride)


def _rebuild_tensor_v2(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> Tensor:
    require(not metadata, 'a tensor has metadata')
    return _tensor(storage, offset, size, stride).requires_grad_(requires_grad is True)


def _rebuild_tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, dtype: Any, metadata: Any = None
) -> Tensor:
    require(not metadata and type(dtype) is torch.dtype, 'a tensor has metadata or no dtype')
    return _tensor(storage, offset, size, stride, dtype).requires_grad_(requires_grad is True)


def _rebuild_parameter(data: Any, requires_grad: Any, hooks: Any) -> nn.Parameter:
    require(type(data) is Tensor, 'a parameter holds no tensor')
    return nn.Parameter(data, requires_grad is True)


def _size(values: Any) -> torch.Size:
    require(type(values) is tuple and all(map(is_count, values)), 'a torch.Size must hold counts')
    return torch.Size(values)


def _device(kind: Any, index: Any = None) -> torch.device:
    require(type(kind) is str and (index is None or index in range(128)), 'a torch.device needs a name')
    return torch.device(kind) if index is None else torch.device(kind, index)


def _dtype(code: Any, align: Any = False, copy: Any = False) -> np.dtype:
    """A numpy dtype, of plain numbers only."""
    require(type(code) is str and code in _NUMBERS, 'an array of numpy is not of plain numbers')
    return np.dtype(code)


def _empty_array(kind: Any, shape: Any, code: Any) -> np.ndarray:
    require(kind is _VALUES['numpy.ndarray'], 'an array of numpy is of another class')
    return np.empty(0, np.uint8)  # BUILD fills it


def _check_numbers(dtype: Any, shape: tuple[int, ...], data: Any) -> None:
    require(isinstance(dtype, np.dtype) and type(data) is bytes, 'numbers of numpy must be bytes of a dtype')
    size = math.prod(shape) * dtype.itemsize
    require(len(data) == size, f'numbers of numpy need {size} bytes, and have {len(data)}')
    require(dtype.kind != 'b' or set(data) <= {0, 1}, 'truth values of numpy must be 0 or 1')


def _numpy_scalar(dtype: Any, data: Any) -> Any:
    _check_numbers(dtype, (), data)
    return np.frombuffer(data, dtype)[0]


def _ordered_dict(pairs: Any = ()) -> OrderedDict:
    require(type(pairs) in (tuple, list), 'an OrderedDict must be made of pairs')
    require(all(type(pair) in (tuple, list) and len(pair) == 2 for pair in pairs), 'an OrderedDict needs pairs')
    return OrderedDict((_key(key), value) for key, value in pairs)


def _counter(counts: Any = None) -> Counter:
    require(counts is None or type(counts) is dict, 'a Counter must be made of a dict')
    return Counter(counts)


def _set(members: Any = ()) -> set:
    require(type(members) in (tuple, list), 'a set must be made of a list')
    return set(map(_key, members))


def _complex(real: Any, imaginary: Any) -> complex:
    require(type(real) is float and type(imaginary) is float, 'a complex number needs two floats')
    return complex(real, imaginary)


def _bytes(text: Any = '', encoding: Any = 'latin1') -> bytes:
    """Bytes, which protocol 2 writes as calls of ``_codecs.encode``, and empty ones as a call of ``bytes``."""
    require(type(text) is str and encoding in ('latin1', 'latin-1'), 'bytes must be written as latin1')
    return text.encode('latin1')


def _bytearray(data: Any = b'', encoding: Any = None) -> bytearray:
    return bytearray(data if type(data) is bytes and encoding is None else _bytes(data, encoding))


def _history() -> HistoryBuffer:
    return HistoryBuffer.__new__(HistoryBuffer)  # BUILD fills it


def _saved_method(owner: Any, name: Any) -> Any:
    """Replaces ``getattr``, by which a pickle could reach any function from any object."""
    if type(owner) is Global and owner.owner and name in SAVED_METHODS[owner.owner]:
        return getattr(owner.owner, name)
    what = owner.name if type(owner) is Global else f'a {type(owner).__name__}'
    raise GlobalRefusedError(f'builtins.getattr called on {what}')


def _name(cls: type) -> str:
    return f'{cls.__module__}.{cls.__name__}'


_CALLS: dict[str, Callable[..., Any] | None] = {
    '_codecs.encode': _bytes,
    'builtins.bytearray': _bytearray,
    'builtins.bytes': _bytes,
    'builtins.complex': _complex,
    'builtins.getattr': _saved_method,
    'builtins.set': _set,
    'collections.Counter': _counter,
    'collections.OrderedDict': _ordered_dict,
    'numpy.dtype': _dtype,
    'numpy.ndarray': None,
    'torch.Size': _size,
    'torch.device': _device,
    'torch._utils._rebuild_parameter': _rebuild_parameter,
    'torch._utils._rebuild_tensor': _rebuild_tensor,
    'torch._utils._rebuild_tensor_v2': _rebuild_tensor_v2,
    'torch._utils._rebuild_tensor_v3': _rebuild_tensor_v3,
    'yacs.config.CfgNode': _ordered_dict,  # the config of the official classification training
    **{f'{core}.multiarray._reconstruct': _empty_array for core in ('numpy.core', 'numpy._core')},  # before and since
    **{f'{core}.multiarray.scalar': _numpy_scalar for core in ('numpy.core', 'numpy._core')},  # numpy 2
}
_VALUES: dict[str, Any] = {
    **{name: Global(name, call) for name, call in _CALLS.items()},
    _name(HistoryBuffer): Global(_name(HistoryBuffer), _history, HistoryBuffer),
    _name(OneCycleParamScheduler): Global(_name(OneCycleParamScheduler), owner=OneCycleParamScheduler),
    **{f'torch.{name}': StorageType(dtype) for name, dtype in STORAGE_TYPES.items()},
    **{str(dtype): dtype for dtype in (*STORAGE_TYPES.values(), *_OTHER_DTYPES)},
    'torch.storage.UntypedStorage': StorageType(torch.uint8),
}


# --- the states of objects --------------------------------------------------------------------------------------------


def _build_array(array: np.ndarray, state: Any) -> None:
    require(array.size == 0 and type(state) is tuple and len(state) == 5, 'an array of numpy has a forged state')
    version, shape, dtype, fortran, data = state
    require(version == 1 and type(fortran) is bool, 'an array of numpy has a forged state')
    require(type(shape) is tuple and len(shape) <= MAX_DIMS, 'an array of numpy has a forged shape')
    require(all(map(is_count, shape)), 'an array of numpy has a forged shape')
    if 0 in shape:
        _check_empty(shape)
    _check_numbers(dtype, shape, data)
    array.__setstate__((1, shape, dtype, fortran, data))


def _build_dtype(dtype: np.dtype, state: Any) -> None:
    require(state in ((3, order, None, None, None, -1, -1, 0) for order in '<|='), 'a numpy dtype has a forged state')


def _build_history(history: HistoryBuffer, state: Any) -> None:
    names = {'max_length', '_log_history', '_count_history', 'statistics_methods'}
    require(not vars(history) and type(state) is dict and state.keys() <= names, 'a HistoryBuffer has a forged state')
    log, count, length = (state.get(name) for name in ('_log_history', '_count_history', 'max_length'))
    methods = state.get('statistics_methods', {})
    require(type(methods) is dict, 'a HistoryBuffer has forged methods')
    for name, method in methods.items():
        known = name in SAVED_METHODS[HistoryBuffer] and method is getattr(HistoryBuffer, name)
        require(known, 'a HistoryBuffer has forged methods')
    require(
        all(type(array) is np.ndarray and array.ndim == 1 for array in (log, count)), 'a HistoryBuffer has no history'
    )
    require(is_count(length) and len(log) == len(count) <= length, 'a HistoryBuffer is longer than it may be')
    history.__init__(log, count, length)


def _build_ordered_dict(ordered: OrderedDict, state: Any) -> None:
    """Keeps the versions of modules, which ``state_dict()`` attaches, and nothing else."""
    require(type(state) is dict, 'an OrderedDict has a forged state')
    if state.get('_metadata') is not None:
        ordered._metadata = state['_metadata']  # type: ignore[attr-defined]


def _build(thing: Any, state: Any) -> None:
    if isinstance(thing, np.dtype):
        return _build_dtype(thing, state)
    builders: dict[type, Callable[[Any, Any], None]] = {
        np.ndarray: _build_array,
        HistoryBuffer: _build_history,
        OrderedDict: _build_ordered_dict,
    }
    require(type(thing) in builders, f'a {type(thing).__name__} has a state, which it cannot have')
    builders[type(thing)](thing, state)


# --- the machine ------------------------------------------------------------------------------------------------------


def _key(value: Any, nested: bool = False) -> Any:
    """A key of a dict. Hashing deep tuples, or huge numbers made to collide, would take forever."""
    if type(value) is tuple and not nested:
        return tuple(_key(item, nested=True) for item in value)
    require(
        type(value) in (str, bytes, float, bool, type(None))
        or (type(value) is int and value.bit_length() <= 64)
        or isinstance(value, np.number),
        f'a {type(value).__name__} is the key of a dict',
    )
    return value


def _refuse_instruction(machine: Any) -> NoReturn:
    raise pickle.UnpicklingError('it holds pickle instructions that torch.save does not write')


class Unpickler(pickle._Unpickler):
    """Reads one pickle from a file.

    Args:
        file: An open file.
        storage: Returns the :class:`Storage` of a persistent id, the tuple of which ``torch.save`` writes.

    Raises:
        GlobalRefusedError: From ``load``: the pickle names something that is not for checkpoints.
        Exception: From ``load``: it is damaged or forged. Which type it is depends on the damage.
    """

    proto: int
    stack: list[Any]
    append: Callable[[Any], None]

    def __init__(self, file: Any, storage: Callable[[tuple], Storage] | None = None) -> None:
        super().__init__(file, encoding='utf-8')
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a global. Protocol 2 uses the names of Python 2."""
        full_name = f'{module}.{name}'.replace('__builtin__.', 'builtins.', 1)
        if full_name not in _VALUES:
            raise GlobalRefusedError(full_name)
        return _VALUES[full_name]

    def persistent_load(self, pid: Any) -> Storage:
        """The storage of a tensor."""
        if self._storage is None:
            raise pickle.UnpicklingError('a storage stands where none can be')
        require(type(pid) is tuple and len(pid) in (5, 6), 'a storage has no proper name')
        kind, storage_type, key, location, numel, *view = pid
        require(kind == 'storage' and type(storage_type) is StorageType, 'only storages have persistent names')
        require(type(key) is str and type(location) is str and is_count(numel), 'a storage has no proper name')
        return self._storage((storage_type.dtype, key, location, numel, *view))

    def _set_protocol(self) -> None:
        super().load_proto()  # type: ignore[misc]
        require(
            self.proto <= 3,
            f'its pickle protocol is {self.proto}, and torch.save writes 2: save it again without pickle_protocol',
        )

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        require(type(function) is Global and function.call is not None, 'it calls what is no function')
        require(type(arguments) is tuple, 'the arguments of a call are no tuple')
        self.append(function.call(*arguments))

    def _set_state(self) -> None:
        state = self.stack.pop()
        _build(self.stack[-1], state)

    def _append_items(self, items: list) -> None:
        require(type(self.stack[-1]) is list, 'it appends to what is no list')
        self.stack[-1].extend(items)

    def _set_items(self, items: list) -> None:
        require(type(self.stack[-1]) in (dict, OrderedDict, Counter), 'it sets items of what is no dict')
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][_key(key)] = value

    def _pop(self, count: int) -> list:
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    _PLAIN = (
        *(pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT),
        *(pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT, pickle.BINUNICODE, pickle.SHORT_BINSTRING),
        *(pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2),
        *(pickle.TUPLE3, pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET, pickle.GLOBAL),
        pickle.BINPERSID,
    )
    _instructions: dict[int, Any] = {
        **dict.fromkeys(range(256), _refuse_instruction),
        **{code[0]: pickle._Unpickler.dispatch[code[0]] for code in _PLAIN},
        pickle.PROTO[0]: _set_protocol,
        pickle.REDUCE[0]: _call,
        pickle.NEWOBJ[0]: _call,
        pickle.BUILD[0]: _set_state,
        pickle.APPEND[0]: lambda self: self._append_items(self._pop(1)),
        pickle.APPENDS[0]: lambda self: self._append_items(self.pop_mark()),
        pickle.SETITEM[0]: lambda self: self._set_items(self._pop(2)),
        pickle.SETITEMS[0]: lambda self: self._set_items(self.pop_mark()),
    }
    dispatch = _instructions
