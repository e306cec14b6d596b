"""An assembler of checkpoint files: pickles instruction by instruction, and the archives around them."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from typing import Any

CANARY = 'canary'  # the file that hostile code would create, in the working folder
CODE = f'open({CANARY!r}, "w").close()'
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)


# --- an assembler of pickles ------------------------------------------------------------------------------------------


class Raw(bytes):
    """Instructions that leave one value on the stack."""


def value(thing: Any) -> bytes:
    """Instructions for a plain value; tuples, lists and dicts may hold :class:`Raw`."""
    if isinstance(thing, Raw):
        return thing
    if isinstance(thing, tuple):
        return b'(' + b''.join(map(value, thing)) + b't'
    if isinstance(thing, list):
        return b'](' + b''.join(map(value, thing)) + b'e'
    if isinstance(thing, dict):
        return b'}(' + b''.join(value(key) + value(item) for key, item in thing.items()) + b'u'
    if isinstance(thing, bytes):
        return call('_codecs', 'encode', thing.decode('latin1'), 'latin1')
    return pickle.dumps(thing, protocol=2)[2:-1]


def ref(module: str, name: str) -> Raw:
    return Raw(f'c{module}\n{name}\n'.encode())


def call(module: str, name: str, *arguments: Any) -> Raw:
    return Raw(ref(module, name) + value(arguments) + b'R')


def new(module: str, name: str, *arguments: Any) -> Raw:
    return Raw(ref(module, name) + value(arguments) + b'\x81')


def build(thing: Raw, state: Any) -> Raw:
    return Raw(thing + value(state) + b'b')


BARE = ref('collections', 'OrderedDict')  # the class, not a call of it


def program(thing: Any) -> bytes:
    return b'\x80\x02' + value(thing) + b'.'


# --- archives ---------------------------------------------------------------------------------------------------------


def archive(thing: Any, records: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive as torch.save writes it. ``thing`` may also be the pickle itself."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w', compression) as opened:
        opened.writestr('archive/data.pkl', thing if type(thing) is bytes else program(thing))
        for name, content in {
            'version': b'3\n',
            'byteorder': b'little',
            'data/0': b'\0' * 16,
            **(records or {}),
        }.items():
            opened.writestr(f'archive/{name}', content)
    return stream.getvalue()


def storage(numel: Any = 4, kind: str = 'FloatStorage', key: Any = '0', module: str = 'torch', *view: Any) -> Raw:
    return Raw(value(('storage', ref(module, kind), key, 'cpu', numel, *view)) + b'Q')


def tensor(size: Any = (4,), stride: Any = (1,), offset: Any = 0, of: Raw | None = None, *rest: Any) -> Raw:
    hooks = call('collections', 'OrderedDict')
    arguments = (storage() if of is None else of, offset, size, stride, False, hooks, *rest)
    return call('torch._utils', '_rebuild_tensor_v2', *arguments)


def state(thing: Any, name: str = 'weight') -> dict:
    return {'state_dict': {name: thing}, 'meta': {}}


def legacy(thing: Any, keys: Any, data: bytes, version: int = 1001, info: Any = None) -> bytes:
    return MAGIC + program(version) + program(info or {}) + program(thing) + program(keys) + data


def safetensors(header: Any, data: bytes = b'', length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack('<Q', len(text) if length is None else length) + text + data


# --- numpy and MMEngine -----------------------------------------------------------------------------------------------


def dtype(code: Any = 'f8', fields: Any = None) -> Raw:
    plain = call('numpy', 'dtype', code, False, True)
    return build(plain, fields or (3, '<', None, None, None, -1, -1, 0))


def array(
    shape: Any = (2,), of: Raw | None = None, data: Any = b'\0' * 16, version: Any = 1, order: Any = False
) -> Raw:
    empty = call('numpy.core.multiarray', '_reconstruct', ref('numpy', 'ndarray'), (0,), b'b')
    return build(empty, (version, shape, of or dtype(), order, data))


def scalar(of: Raw | None = None, data: Any = b'\0' * 8) -> Raw:
    return call('numpy._core.multiarray', 'scalar', of or dtype(), data)


def history(**changes: Any) -> dict:
    fields = {'max_length': 10, '_log_history': array(), '_count_history': array(), **changes}
    return {
        'meta': {},
        'state_dict': {},
        'loss': build(new('mmengine.logging.history_buffer', 'HistoryBuffer'), fields),
    }
