"""The stack machine that reads a pickle, with only the instructions that ``torch.save`` writes."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import numpy as np

from .calls import DICTS, Global, find_global, key
from .refusals import is_count, require, require_supported, unfolded_limit
from .states import build
from .tensors import Storage, StorageType


class Unpickler(pickle._Unpickler):
    """Reads one pickle from a file.

    Args:
        file: An open file.
        size: Bytes of the pickle, or of the file around it. They limit what all calls and states together may copy.
        storage: Returns the :class:`Storage` of a persistent id, the tuple of which ``torch.save`` writes.

    Raises:
        GlobalRefusedError: From ``load``: the pickle names something that is not for checkpoints.
        UnsupportedError: From ``load``: it is of another kind than ``torch.save`` writes by itself.
        Exception: From ``load``: it is damaged or forged. Which type it is depends on the damage.
    """

    proto: int
    stack: list[Any]
    append: Callable[[Any], None]

    def __init__(self, file: Any, size: int, storage: Callable[[tuple], Storage] | None = None) -> None:
        super().__init__(file, encoding='utf-8')
        self._storage = storage
        self._limit = self._left = unfolded_limit(size)

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a global. Protocol 2 uses the names of Python 2."""
        return find_global(f'{module}.{name}'.replace('__builtin__.', 'builtins.', 1))

    def persistent_load(self, pid: Any) -> Storage:
        """The storage of a tensor."""
        if self._storage is None:
            raise pickle.UnpicklingError('a storage stands where none can be')
        require(type(pid) is tuple and len(pid) in (5, 6), 'a storage has no proper name')
        kind, storage_type, name, location, numel, *view = pid
        require(kind == 'storage' and type(storage_type) is StorageType, 'only storages have persistent names')
        require(type(name) is str and type(location) is str and is_count(numel), 'a storage has no proper name')
        return self._storage((storage_type.dtype, name, location, numel, *view))

    def _require_protocol(self, protocol: str, supported: bool) -> None:
        require_supported(
            supported,
            f'its pickle protocol is {protocol}, and torch.save writes 2: save it again without pickle_protocol',
        )

    def _set_protocol(self) -> None:
        super().load_proto()  # type: ignore[misc]
        self._require_protocol(str(self.proto), 2 <= self.proto <= 3)

    def _refuse(self) -> NoReturn:
        self._require_protocol('0 or 1', self.proto >= 2)  # these do not tell
        raise pickle.UnpicklingError('it holds pickle instructions that torch.save does not write')

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        require(type(function) is Global and function.call is not None, 'it calls what is no function')
        require(type(arguments) is tuple, 'the arguments of a call are no tuple')
        self._charge(arguments)
        self.append(function.call(*arguments))

    def _set_state(self) -> None:
        state = self.stack.pop()
        self._charge([state])
        self._charge(state.values() if type(state) is dict else state if type(state) is tuple else ())
        build(self.stack[-1], state)

    def _charge(self, values: Iterable[Any]) -> None:
        """Counts what a call or a state copies: two bytes of a pickle are enough to name a large value once more."""
        self._left -= sum(1 + _size(value) for value in values)
        require_supported(self._left >= 0, f'its values repeat to more than {self._limit} bytes: save each once')

    def _append_items(self, items: list) -> None:
        require(type(self.stack[-1]) is list, 'it appends to what is no list')
        self.stack[-1].extend(items)

    def _set_items(self, items: list) -> None:
        require(type(self.stack[-1]) in DICTS, 'it sets items of what is no dict')
        for name, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][key(name)] = value

    def _pop(self, count: int) -> list:
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    _PLAIN = (
        *(pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT),
        *(pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT, pickle.BINUNICODE, pickle.SHORT_BINSTRING),
        *(pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2),
        *(pickle.TUPLE3, pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET, pickle.GLOBAL),
        *(pickle.BINPERSID, pickle.BINBYTES, pickle.SHORT_BINBYTES),
    )
    _instructions: dict[int, Any] = {
        **dict.fromkeys(range(256), _refuse),
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


def _size(value: Any) -> int:
    """The bytes, or for each item of a container those of a pointer."""
    if type(value) is np.ndarray:
        return value.nbytes
    if type(value) in (str, bytes):
        return len(value)
    return 8 * len(value) if type(value) in (tuple, list, *DICTS) else 0
