"""Hostile checkpoint files, written instruction by instruction.

``refused()`` gives files that :func:`mmcv_custom.checkpoint.load_safely` must refuse, ``misformed()`` those that it
reads and that no program can use.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

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


# --- what is refused --------------------------------------------------------------------------------------------------

# Functions that do something when they are called with these arguments.
CALLS: list[tuple[str, str, tuple]] = [
    ('os', 'system', (f'touch {CANARY}',)),
    ('posix', 'system', (f'touch {CANARY}',)),
    ('posix', 'mkdir', (CANARY,)),
    ('builtins', 'exec', (CODE,)),
    ('__builtin__', 'exec', (CODE,)),
    ('__builtin__', 'eval', (CODE,)),
    ('builtins', 'open', (CANARY, 'w')),
    ('io', 'open', (CANARY, 'w')),
    ('builtins', '__import__', ('this',)),
    ('builtins', 'compile', (CODE, 'x', 'exec')),
    ('builtins', 'print', ('hello',)),
    ('subprocess', 'Popen', (['touch', CANARY],)),
    ('importlib', 'import_module', ('antigravity',)),
    ('runpy', 'run_path', ('/etc/passwd',)),
    ('shutil', 'rmtree', ('folder',)),
    ('pathlib', 'Path.touch', (CANARY,)),
    ('functools', 'partial', (ref('os', 'system'), f'touch {CANARY}')),
    ('operator', 'attrgetter', ('__class__',)),
    ('operator', 'methodcaller', ('system', CANARY)),
    ('copyreg', '_reconstructor', (ref('builtins', 'object'), ref('builtins', 'object'), None)),
    ('ctypes', 'string_at', (0,)),
    ('types', 'SimpleNamespace', ()),
    ('pickle', 'loads', (b'.',)),
    ('torch', 'load', ('other.pth',)),
    ('torch', 'FloatTensor', (10**11,)),
    ('torch', 'Tensor', (10**11,)),
    ('torch.hub', 'load', ('owner/repo', 'model')),
    ('torch.jit', 'load', ('other.pt',)),
    ('torch.storage', '_load_from_bytes', (b'x',)),
    ('torch.storage', 'UntypedStorage', (10**11,)),
    ('torch.storage', 'TypedStorage', (10**11,)),
    ('torch.nn.modules.linear', 'Linear', (2, 2)),
    ('torch._tensor', '_rebuild_from_type_v2', (ref('os', 'system'), ref('torch', 'Tensor'), (CANARY,), {})),
    ('torch._utils', '_rebuild_sparse_tensor', (ref('torch', 'sparse_coo'), ())),
    ('torch._utils', '_rebuild_qtensor', ()),
    ('torch._utils', '_rebuild_nested_tensor', ()),
    ('torch._utils', '_rebuild_wrapper_subclass', ()),
    ('torch._utils', '_rebuild_meta_tensor_no_storage', (ref('torch', 'float32'), (2**40,), (1,), False)),
    ('torch._utils', '_rebuild_parameter_with_state', ()),
    ('torch._utils', '_rebuild_device_tensor_from_numpy', ()),
    ('numpy', 'load', ('other.npy',)),
    ('numpy', 'fromfile', ('/etc/passwd',)),
    ('numpy', 'memmap', ('/etc/passwd',)),
    ('numpy.core.multiarray', 'frombuffer', (b'12345678',)),
    ('mmengine.config.config', 'Config.fromstring', (CODE, '.py')),
    ('mmengine.config', 'Config', ({},)),
    ('mmengine.fileio', 'load', ('other.pkl',)),
    ('mmengine.logging.message_hub', 'MessageHub', ('name',)),
    ('collections', 'deque', ([],)),
    ('builtins', 'slice', (1,)),
    ('not_there', 'nothing', ()),
    ('builtins\x1b[31m', 'red', ()),
]

GETATTR: dict[str, tuple] = {
    'constructor': (ref('mmengine.logging.history_buffer', 'HistoryBuffer'), '__init__'),
    'array to file': (ref('numpy', 'ndarray'), 'tofile'),
    'class of a scheduler': (
        ref('mmengine.optim.scheduler.param_scheduler', 'OneCycleParamScheduler'),
        '__subclasses__',
    ),
    'of a text': ('text', 'format'),
    'of a tensor': (tensor(), 'numpy'),
    'with a default': (ref('collections', 'OrderedDict'), 'none', 1),
}

BARE = ref('collections', 'OrderedDict')
PICKLES: dict[str, Any] = {
    'INST': b'\x80\x02(X\x01\x00\x00\x00aios\nsystem\n.',
    'OBJ': b'\x80\x02(cos\nsystem\nX\x01\x00\x00\x00ao.',
    'EXT1': b'\x80\x02\x82\x01.',
    'STACK_GLOBAL': b'\x80\x04\x8c\x02os\x8c\x06system\x93.',
    'NEWOBJ_EX': b'\x80\x04' + BARE + b')}\x92.',
    'FRAME': b'\x80\x04\x95' + struct.pack('<Q', 2**62) + b'}.',
    'LONG4': b'\x80\x02\x8b' + struct.pack('<i', 2**30) + b'.',
    'BYTEARRAY8': b'\x80\x05\x96' + struct.pack('<Q', 2**62) + b'.',
    'NEXT_BUFFER': b'\x80\x05\x97.',
    'text persistent id': b'\x80\x02Pstorage\n.',
    'no instructions': b'',
    'only STOP': b'.',
    'protocol 99': b'\x80\x63}.',
    'unknown instruction': b'\x80\x02\xff.',
    'text of 4 GB': b'\x80\x02X\xff\xff\xff\xffabc.',
    'no memo': b'\x80\x02h\x07.',
    'no mark': b'\x80\x02t.',
    'not UTF-8': b'\x80\x02U\x02\xff\xfe.',
    'a call of a number': Raw(value(7) + b')R'),
    'a call with a list': Raw(ref('collections', 'OrderedDict') + value([]) + b'R'),
    'a call of a dtype': Raw(ref('torch', 'float32') + b')R'),
    'a call of a tensor': Raw(tensor() + b')R'),
    'items of a tensor': Raw(tensor() + value(0) + value(7) + b's'),
    'items of a list': Raw(value([1]) + value(0) + value(7) + b's'),
    'append to a dict': Raw(value({}) + value(7) + b'a'),
    'state of a class': build(BARE, (None, {'__init__': 1})),
    'state of a tensor': build(tensor(), (storage(), 0, (10**9,), (0,))),
    'state of a list': build(Raw(value([])), {'a': 1}),
    'state of a dtype of torch': build(ref('torch', 'float32'), {'a': 1}),
    'a class alone': state(ref('numpy', 'ndarray')),
    'a storage alone': state(storage()),
    'a storage class alone': state(ref('torch', 'FloatStorage')),
    'set of lists': call('__builtin__', 'set', [[1]]),
    'complex of text': call('__builtin__', 'complex', 'a', 'b'),
    'bytearray of 100 GB': call('__builtin__', 'bytearray', 10**11),
    'bytes of 100 GB': call('__builtin__', 'bytes', 10**11),
    'codec of zlib': call('_codecs', 'encode', 'a', 'zlib'),
    'codec to import': call('_codecs', 'encode', 'a', 'this'),
    'size of text': call('torch', 'Size', ('a',)),
    'device of a number': call('torch', 'device', 10**20),
    'Counter of a list': call('collections', 'Counter', [1]),
    'OrderedDict of numbers': call('collections', 'OrderedDict', [1, 2]),
    'versions are no mapping': state({}) | {'x': build(call('collections', 'OrderedDict'), {'_metadata': 5})},
    'version forged later': [
        build(call('collections', 'OrderedDict'), {'_metadata': {'': Raw(value({'version': 1}) + b'q\x09')}}),
        Raw(b'h\x09' + value('version') + value('a') + b's'),
    ],
    'device 999': call('torch', 'device', 'cuda', 999),
    'version is text': {'x': build(call('collections', 'OrderedDict'), {'_metadata': {'': {'version': 'a'}}})},
}

NUMPY: dict[str, Any] = {
    'objects': array(of=dtype('O8')),
    'objects by name': array(of=call('numpy', 'dtype', 'O', False, True), data=b'A' * 16),
    'records': array(of=dtype('V16')),
    'texts': array(of=dtype('U2')),
    'times': array(of=dtype('M8[ns]')),
    'long doubles': array((1,), dtype('f16')),
    'comma dtype': array(of=dtype('f8,f8'), data=b'\0' * 32),
    'dtype of a list': array(of=call('numpy', 'dtype', [('a', 'O')], False, True)),
    'big endian': array(of=dtype('f8', (3, '>', None, None, None, -1, -1, 0))),
    'forged fields': array(of=dtype('f8', (3, '<', None, ('a',), {'a': (ref('torch', 'float32'), 0)}, 8, 1, 0))),
    'forged flags': array(of=dtype('f8', (3, '|', None, None, None, 8, 8, 63))),
    'subarray': array(of=dtype('f8', (3, '<', (ref('torch', 'float32'), (3,)), None, None, -1, -1, 0))),
    'short state of a dtype': array(of=dtype('f8', (3,))),
    'short state': build(call('numpy.core.multiarray', '_reconstruct', ref('numpy', 'ndarray'), (0,), b'b'), (1,)),
    'state is a list': build(call('numpy.core.multiarray', '_reconstruct', ref('numpy', 'ndarray'), (0,), b'b'), [1]),
    'negative shape': array((-2,)),
    'two negative shapes': array((-1, -2)),
    'huge shape': array((2**62, 2**62)),
    'huge empty shape': array((0, 2**62), data=b''),
    'huge shape of nothing': array((0, 2**31, 2**31), data=b''),
    'shape of truth values': array((True, 2)),
    'shape is a list': array([2]),
    '65 dimensions': array((1,) * 65, data=b'\0' * 8),
    'too few bytes': array(data=b'\0' * 15),
    'too many bytes': array(data=b'\0' * 17),
    'no bytes': array(data=b''),
    'list as bytes': array(data=[1, 2]),
    'text as bytes': array(data='0' * 16),
    'version 2': array(version=2),
    'order is text': array(order='F'),
    'state twice': build(array(), (1, (2,), dtype(), False, b'\0' * 16)),
    'truth values of 2': array((2,), dtype('b1'), b'\2\2'),
    'matrix': call('numpy.core.multiarray', '_reconstruct', ref('numpy', 'matrix'), (0,), b'b'),
    'array of no class': call('numpy.core.multiarray', '_reconstruct', 5, (0,), b'b'),
    'constructor': call('numpy', 'ndarray', (2,), 'O'),
    'constructor with a buffer': call('numpy', 'ndarray', (2**40,), dtype(), b'abc', -(2**40)),
    'object scalar': scalar(dtype('O8')),
    'short scalar': scalar(data=b'abc'),
    'scalar without data': call('numpy.core.multiarray', 'scalar', dtype()),
    'scalar of no dtype': call('numpy.core.multiarray', 'scalar', 'f8', b'\0' * 8),
}

METADATA = {'conj': True}
TENSORS: dict[str, Any] = {
    'storage claims more': tensor(of=storage(400)),
    'storage claims 100 GB': tensor(of=storage(25 * 10**9)),
    'storage claims less': tensor((2,), of=storage(2)),
    'storage of negative size': tensor(of=storage(-4)),
    'storage of size True': tensor((1,), of=storage(True)),
    'storage of size 2^64': tensor(of=storage(2**64)),
    'storage is missing': tensor(of=storage(key='1')),
    'storage elsewhere': tensor(of=storage(key='../data.pkl')),
    'storage named by a number': tensor(of=storage(key=0)),
    'storage of no class': tensor(of=Raw(value(('storage', 'float', '0', 'cpu', 4)) + b'Q')),
    'storage of quantised': tensor(of=storage(16, 'QInt8Storage')),
    'storage id is short': tensor(of=Raw(value(('storage',)) + b'Q')),
    'module instead of storage': tensor(of=Raw(value(('module', BARE, 'file.py', 'source', 4)) + b'Q')),
    'storage of two types': {'a': tensor(), 'b': tensor(of=storage(4, 'IntStorage'))},
    'no storage': tensor(of=Raw(value(7))),
    'negative offset': tensor(offset=-1),
    'offset beyond': tensor(offset=1),
    'offset of 2^63': tensor(offset=2**63),
    'negative stride': tensor((2,), (-1,), 1),
    'negative size': tensor((-4,)),
    'two negative sizes': tensor((-2, -2), (1, 1)),
    'size beyond': tensor((5,)),
    'stride beyond': tensor((4,), (2,)),
    'stride 0': tensor((10**9,), (0,)),
    'strides that overlap': tensor((3, 3), (1, 1)),
    'stride of 2^62': tensor((2, 2), (2**62, 2**62)),
    'size of 2^62': tensor((2**62, 4), (0, 0)),
    'empty and huge': tensor((0, 2**62), (1, 1)),
    'size is a number': tensor(4),
    'size is a list': tensor([4]),
    'size of floats': tensor((4.0,)),
    'no stride': tensor((4,), ()),
    '100 dimensions': tensor((1,) * 100, (1,) * 100),
    'truth values of 2': tensor((16,), of=storage(16, 'BoolStorage')),
    'metadata': tensor((4,), (1,), 0, None, METADATA),
    'gradient of integers': call(
        *('torch._utils', '_rebuild_tensor_v2', storage(2, 'LongStorage'), 0, (2,), (1,), True, None)
    ),
    'another dtype beyond': call(
        *('torch._utils', '_rebuild_tensor_v3', storage(16, 'UntypedStorage', '0', 'torch.storage'), 0, (16,), (1,)),
        *(False, None, ref('torch', 'float64')),
    ),
    'dtype is text': call('torch._utils', '_rebuild_tensor_v3', storage(), 0, (4,), (1,), False, None, 'float32'),
    **{
        f'dtype {name}': call(
            *('torch._utils', '_rebuild_tensor_v3', storage(16, 'UntypedStorage', '0', 'torch.storage')),
            *(0, (16,), (1,), False, None, ref('torch', name)),
        )
        for name in ('quint8', 'bits8', 'int1', 'float4_e2m1fn_x2')
    },
    'parameter of a number': call('torch._utils', '_rebuild_parameter', 5, True, None),
    'unprintable name': {'a\n\x1b[2J': tensor()},
    'endless name': {'a' * 100_000: tensor()},
}


def shared(levels: int, brackets: tuple[bytes, bytes]) -> Raw:
    """A list (or tuple) of ten times the same, and so on: 10^levels values."""
    begin, end = brackets
    code = value(7)
    for level in range(levels):
        again = b'h' + bytes([level])
        code = begin + code + b'q' + bytes([level]) + again * 9 + end
    return Raw(code)


def doubled(levels: int) -> Raw:
    """A tuple of twice the same tuple, and so on."""
    code = value(())
    for level in range(levels):
        code += b'r' + struct.pack('<I', level) + b'j' + struct.pack('<I', level) + b'\x86'
    return Raw(code)


def copied_tensor() -> dict:
    """Two thousand times the same tensor, which would be as many copies elsewhere."""
    again = Raw(b'h\x09')
    return {'first': Raw(tensor((4096,), of=storage(4096)) + b'q\x09'), 'list': [again] * 2_000}


BOMBS: dict[str, Any] = {
    '10^9 numbers': {'a': shared(9, (b'](', b'e'))},
    '10^9 numbers in tuples': {'a': shared(9, (b'(', b't'))},
    '2^100 tuples': {'a': doubled(99)},
    '2^60 tuples as a key': Raw(value({}) + doubled(60) + value(1) + b's'),
    'a list in itself': Raw(b']q\x09h\x09a'),
    'a dict in itself': Raw(b'}q\x09' + value('a') + b'h\x09s'),
    '100,000 lists deep': {'a': Raw(b']' * 100_000 + b'a' * 99_999)},
    '100,000 tuples deep': {'a': Raw(b')' + b'\x85' * 100_000)},
    '100,000 dicts deep': {'a': Raw(b'}' + (value('a') + b'}') * 99_999 + b's' * 99_999)},
    '2,000 copies of a text': {'a': Raw(value('x' * 10_000) + b'q\x09'), 'b': [Raw(b'h\x09')] * 2_000},
    '2,000 copies of a tensor': archive(program(copied_tensor()), {'data/0': b'\0' * 16384}),
    'keys that collide': {2**61 * n - n + (n << 64): 1 for n in range(1, 2_000)},
    'a list as a key': Raw(value({}) + value([1]) + value(1) + b's'),
    'a tensor as a key': Raw(value({}) + tensor() + value(1) + b's'),
    'a deep key': {((1, (2,)),): 1},
}

HISTORIES: dict[str, Any] = {
    'poisoned statistics': history(statistics_methods={'mean': 5}),
    'exchanged statistics': history(
        statistics_methods={
            'mean': call(
                *('__builtin__', 'getattr', ref('mmengine.logging.history_buffer', 'HistoryBuffer'), 'max'),
            )
        }
    ),
    'new statistics': history(statistics_methods={'update': None}),
    'unequal lengths': history(_count_history=array((1,), data=b'\0' * 8)),
    'lists': history(_log_history=[1, 2], _count_history=[1, 1]),
    'two dimensions': history(_log_history=array((1, 2)), _count_history=array((1, 2))),
    'longer than the limit': history(max_length=1),
    'limit is text': history(max_length='a'),
    'limit is negative': history(max_length=-1),
    'more attributes': history(update=1),
    'other class': history(__class__=1),
    'no state': {'loss': new('mmengine.logging.history_buffer', 'HistoryBuffer')},
    'arguments': {'loss': new('mmengine.logging.history_buffer', 'HistoryBuffer', [1], [1])},
    'a scheduler': new('mmengine.optim.scheduler.param_scheduler', 'OneCycleParamScheduler'),
}

GOOD = archive(state(tensor()))


def duplicate() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w') as opened:
        opened.writestr('a/data.pkl', program({}))
        opened.writestr('b/data.pkl', program({'a': 1}))
    return stream.getvalue()


def overlapping() -> bytes:
    """Twenty records that are the same bytes: the central directory points to one of them twenty times."""
    size = 100_000
    content = archive(program({}), {f'data/{index}': b'\0' * size for index in range(2)})
    end = content.rindex(b'PK\x05\x06')
    start = content.index(b'PK\x01\x02')
    entries = content[start:end]
    at = entries.rindex(b'PK\x01\x02')
    more = b''.join(entries[at:-1] + bytes([65 + index]) for index in range(20))
    count = struct.unpack('<H', content[end + 10 : end + 12])[0] + 20
    tail = struct.pack('<4s4H2IH', b'PK\x05\x06', 0, 0, count, count, len(entries) + len(more), start, 0)
    return content[:start] + entries + more + tail


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def encrypted() -> bytes:
    content = bytearray(GOOD)
    content[6] |= 1
    content[GOOD.index(b'PK\x01\x02') + 8] |= 1
    return bytes(content)


def zip64_lie() -> bytes:
    content = bytearray(GOOD)
    at = GOOD.rindex(b'PK\x01\x02')
    content[at + 20 : at + 28] = struct.pack('<II', 2**31, 2**31)
    return bytes(content)


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode='w') as opened:
        for name, content in {'storages': program(0), 'tensors': program(0), 'pickle': program({})}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            opened.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def script() -> bytes:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Identity()), stream)
    return stream.getvalue()


ARCHIVES: dict[str, Callable[[], bytes]] = {
    'compressed': lambda: archive({'a': 'x' * 10**6}, compression=zipfile.ZIP_DEFLATED),
    'bomb of zeros': lambda: archive(b'\x80\x02}.' + b'\0' * 10**8, compression=zipfile.ZIP_DEFLATED),
    'two pickles': duplicate,
    'overlapping': overlapping,
    'no pickle': lambda: GOOD.replace(b'data.pkl', b'data.txt'),
    'TorchScript': script,
    'constants': lambda: archive(state(tensor()), {'constants.pkl': program(())}),
    'big endian': lambda: archive(state(tensor()), {'byteorder': b'big'}),
    'flipped bit in the pickle': lambda: flipped(GOOD, GOOD.index(b'_rebuild') + 1),
    'flipped bit in a tensor': lambda: flipped(GOOD, GOOD.index(b'data/0') + 10),
    'flipped bit in the directory': lambda: flipped(GOOD, GOOD.index(b'PK\x01\x02') + 2),
    'encrypted': encrypted,
    'record claims 2 GB': zip64_lie,
    'cut by one byte': lambda: GOOD[:-1],
    'cut in half': lambda: GOOD[: len(GOOD) // 2],
    'only the first bytes': lambda: GOOD[:4],
    'empty': lambda: b'',
    'zeros': lambda: b'\0' * 1000,
    'web page': lambda: b'<!DOCTYPE html><html>404</html>',
    'pointer of git lfs': lambda: b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n',
    'tar': tar,
    'plain pickle': lambda: program(state({})),
    'plain hostile pickle': lambda: program(call('os', 'system', f'touch {CANARY}')),
    'ELF': lambda: b'\x7fELF' + b'\0' * 100,
    'picture': lambda: b'\x89PNG\r\n\x1a\n' + b'\0' * 100,
}

LEGACY: dict[str, Callable[[], bytes]] = {
    'number only': lambda: MAGIC,
    'another version': lambda: legacy({}, [], b'', version=1),
    'hostile info': lambda: legacy({}, [], b'', info=call('os', 'system', f'touch {CANARY}')),
    'hostile content': lambda: legacy(call('os', 'system', f'touch {CANARY}'), [], b''),
    'hostile keys': lambda: legacy({}, call('os', 'system', f'touch {CANARY}'), b''),
    'storage in info': lambda: legacy({}, [], b'', info=storage()),
    'module': lambda: legacy(Raw(value(('module', BARE, 'a.py', 'source', 4)) + b'Q'), [], b''),
    'storage claims 100 GB': lambda: legacy(tensor(of=storage(25 * 10**9)), ['0'], struct.pack('<q', 25 * 10**9)),
    'many storages': lambda: legacy(
        {str(key): tensor(of=storage(40, key=str(key))) for key in range(100)}, ['0'], struct.pack('<q', 4)
    ),
    'no data': lambda: legacy(state(tensor()), ['0'], b''),
    'cut in a tensor': lambda: legacy(state(tensor()), ['0'], struct.pack('<q', 4) + b'\0' * 15),
    'another size': lambda: legacy(state(tensor()), ['0'], struct.pack('<q', 5) + b'\0' * 20),
    'negative size': lambda: legacy(state(tensor()), ['0'], struct.pack('<q', -4) + b'\0' * 20),
    'key is missing': lambda: legacy(state(tensor()), [], struct.pack('<q', 4) + b'\0' * 16),
    'key too many': lambda: legacy(state(tensor()), ['0', '1'], (struct.pack('<q', 4) + b'\0' * 16) * 2),
    'keys are no list': lambda: legacy(state(tensor()), 5, struct.pack('<q', 4) + b'\0' * 16),
    'view beyond': lambda: legacy(
        tensor(of=storage(4, 'FloatStorage', '0', 'torch', ('1', 2, 4))), ['0'], struct.pack('<q', 4) + b'\0' * 16
    ),
    'view before': lambda: legacy(
        tensor(of=storage(4, 'FloatStorage', '0', 'torch', ('1', -2, 4))), ['0'], struct.pack('<q', 4) + b'\0' * 16
    ),
}

ONE = {'dtype': 'F32', 'shape': [4], 'data_offsets': [0, 16]}
BYTES = b'\0' * 16
SAFETENSORS: dict[str, Callable[[], bytes]] = {
    'empty': lambda: b'',
    'length of 2^60': lambda: safetensors({'a': ONE}, BYTES, 2**60),
    'length of 99 MB': lambda: safetensors({'a': ONE}, BYTES, 99_000_000),
    'length too short': lambda: safetensors({'a': ONE}, BYTES, 10),
    'no JSON': lambda: safetensors(b'hello', BYTES),
    'a list': lambda: safetensors([1], BYTES),
    'not UTF-8': lambda: safetensors(b'\xff\xfe', BYTES),
    'overlapping': lambda: safetensors({'a': ONE, 'b': ONE}, BYTES),
    'a hole': lambda: safetensors({'a': {**ONE, 'data_offsets': [16, 32]}}, BYTES * 2),
    'beyond the end': lambda: safetensors({'a': {**ONE, 'shape': [8], 'data_offsets': [0, 32]}}, BYTES),
    'backwards': lambda: safetensors({'a': {**ONE, 'data_offsets': [16, 0]}}, BYTES),
    'negative': lambda: safetensors({'a': {**ONE, 'data_offsets': [-16, 0]}}, BYTES),
    'shape of another size': lambda: safetensors({'a': {**ONE, 'shape': [400]}}, BYTES),
    'shape of 2^80': lambda: safetensors({'a': {**ONE, 'shape': [2**40, 2**40]}}, BYTES),
    'unknown dtype': lambda: safetensors({'a': {**ONE, 'dtype': 'OBJECT'}}, BYTES),
    'bytes after the end': lambda: safetensors({'a': ONE}, BYTES + b'x'),
    'cut in a tensor': lambda: safetensors({'a': ONE}, BYTES[:-1]),
    'metadata of numbers': lambda: safetensors({'__metadata__': {'a': 1}, 'a': ONE}, BYTES),
    'meta is no JSON': lambda: safetensors({'__metadata__': {'mmengine_meta': '{'}, 'a': ONE}, BYTES),
    'meta is deep': lambda: safetensors(
        {'__metadata__': {'mmengine_meta': '[' * 10**5 + ']' * 10**5}, 'a': ONE}, BYTES
    ),
    'a pickle': lambda: GOOD,
    'truth values of 2': lambda: safetensors(
        {'a': {'dtype': 'BOOL', 'shape': [16], 'data_offsets': [0, 16]}}, b'\2' * 16
    ),
    'unprintable name': lambda: safetensors({'a\x1b[2J': ONE}, BYTES),
}


def refused() -> dict[str, bytes]:
    """All files that must be refused, by name; the suffix decides how they are read."""
    files: dict[str, bytes] = {f'call {m}.{n}.pth': archive(state(call(m, n, *args))) for m, n, args in CALLS}
    files |= {f'new {m}.{n}.pth': archive(state(new(m, n, *args))) for m, n, args in CALLS[:6]}
    files |= {f'legacy {m}.{n}.pth': legacy(call(m, n, *args), [], b'') for m, n, args in CALLS[:6]}
    files |= {
        f'getattr {name}.pth': archive(state(call('__builtin__', 'getattr', *args))) for name, args in GETATTR.items()
    }
    full_of_twos = {'data/0': b'\2' * 16}
    for group, things in {
        'pickle': PICKLES,
        'numpy': {name: state(thing) for name, thing in NUMPY.items()},
        'tensor': {name: thing if isinstance(thing, dict) else state(thing) for name, thing in TENSORS.items()},
        'bomb': BOMBS,
        'history': HISTORIES,
    }.items():
        for name, thing in things.items():
            whole = type(thing) is bytes and thing.startswith(b'PK')
            files[f'{group} {name}.pth'] = thing if whole else archive(thing, full_of_twos)
    files |= {f'archive {name}.pth': content() for name, content in ARCHIVES.items()}
    files |= {f'row {name}.pth': content() for name, content in LEGACY.items()}
    files |= {f'{name}.safetensors': content() for name, content in SAFETENSORS.items()}
    return {name.replace('/', '_').replace('\x1b', ''): content for name, content in files.items()}


def misformed() -> dict[str, bytes]:
    """Files of harmless things that are no checkpoint."""
    things: dict[str, Any] = {
        'list': [1, 2],
        'number': 5,
        'nothing': None,
        'text': 'abc',
        'tensor': tensor(),
        'empty': {},
        'numbers as names': {1: tensor(), 2: tensor()},
        'numbers as names in a state dict': {'state_dict': {1: tensor()}},
        'meta is a list': {'meta': [1], 'state_dict': {'weight': tensor()}},
        'meta is text': {'meta': 'abc', 'state_dict': {'weight': tensor()}},
        'state dict is a list': {'state_dict': [tensor()]},
        'state dict of texts': {'state_dict': {'weight': 'abc'}},
        'arrays': {'state_dict': {'weight': array()}},
    }
    files = {f'{name}.pth': archive(thing) for name, thing in things.items()}
    metas = {'text': '"abc"', 'list': '[1]', 'number': '5'}
    for name, text in metas.items():
        content = safetensors({'__metadata__': {'mmengine_meta': text}, 'backbone.weight': ONE}, BYTES)
        files[f'meta is a {name}.safetensors'] = content
    return files


def write(files: dict[str, bytes], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]
