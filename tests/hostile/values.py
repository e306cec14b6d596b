"""Pickles of forged values: numpy, tensors, histories, and small files that unfold to large values."""

from __future__ import annotations

import struct
from typing import Any

from tests.hostile.assembler import (
    BARE,
    Raw,
    archive,
    array,
    build,
    call,
    dtype,
    history,
    new,
    program,
    ref,
    scalar,
    storage,
    tensor,
    value,
)

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
    'strides that overlap': tensor((3, 2), (1, 1)),
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


def repeated(function: Raw, arguments: Any, made: bytes = b'h\x01h\x02R', first: Any = ()) -> dict:
    """Two thousand calls of one function with the same large arguments, of which each makes a copy."""
    return {
        'first': first,
        'used': [Raw(function + b'q\x01'), Raw(value(arguments) + b'q\x02')],
        'made': [Raw(made)] * 2_000,
    }


PAIRS = Raw(b'](' + value(('a', 1)) + b'q\x03' + b'h\x03' * 25_000 + b'e')
NUMBERS = {number: 1 for number in range(20_000)}
LONG = array((12_500,), data=b'\0' * 100_000)
HISTORY = {'max_length': 20_000, '_log_history': LONG, '_count_history': LONG}
COPIES: dict[str, Any] = {
    'bytes': repeated(ref('_codecs', 'encode'), ('x' * 100_000, 'latin1')),
    'bytearrays': repeated(ref('__builtin__', 'bytearray'), ('x' * 100_000, 'latin1')),
    'sizes': repeated(ref('torch', 'Size'), ((1,) * 25_000,)),
    'OrderedDicts': repeated(BARE, (PAIRS,)),
    'Counters': repeated(ref('collections', 'Counter'), (NUMBERS,)),
    'sets': repeated(ref('__builtin__', 'set'), ([1] * 25_000,)),
    'arrays': repeated(
        ref('numpy.core.multiarray', '_reconstruct'),
        (ref('numpy', 'ndarray'), (0,), b'b'),
        b'h\x01h\x02Rh\x04b',
        first=Raw(value((1, (12_500,), dtype(), False, b'\0' * 100_000)) + b'q\x04'),
    ),
    'histories': repeated(ref('mmengine.logging.history_buffer', 'HistoryBuffer'), HISTORY, b'h\x01)\x81h\x02b'),
    'states': repeated(BARE, NUMBERS, b'h\x01)Rh\x02b'),
}

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
    'keys that collide in tuples': {
        (2.0 ** (61 * n), 2.0 ** (61 * m)): 1 for n in range(-16, 17) for m in range(-16, 17)
    },
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
