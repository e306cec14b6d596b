"""Why files are refused: each check alone, and what is damaged, dangerous or not supported is called so."""

from __future__ import annotations

import io
import pickle
import re
import tracemalloc
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mmcv_custom.checkpoint import CheckpointError, load_safely
from mmcv_custom.checkpoint.archive import read_archive
from mmcv_custom.checkpoint.contents import check_content
from mmcv_custom.checkpoint.unpickling import GlobalRefusedError, UnsupportedError
from tests.hostile.archives import script
from tests.hostile.assembler import (
    MAGIC,
    Raw,
    archive,
    array,
    build,
    call,
    dtype,
    history,
    program,
    scalar,
    state,
    tensor,
    value,
)
from tests.mmcv.saved_files import saved

# A forged file, what is said of it, and its genuine twin. Without the check that says it, each file is read, or refused
# in other words by what is behind.
NOISE = {'data/1': bytes(torch.randint(256, (2000,), generator=torch.Generator().manual_seed(0)).tolist())}
FORGED: dict[str, tuple[bytes, str, bytes]] = {
    'compressed records': (
        archive(state(tensor()), NOISE, zipfile.ZIP_DEFLATED),
        'its records are compressed or encrypted',
        archive(state(tensor()), NOISE),
    ),
    'a tensor beyond its storage': (
        archive(state(tensor((5,)))),
        'a tensor is larger than its 16 bytes',
        archive(state(tensor((4,)))),
    ),
    'strides that overlap': (
        archive(state(tensor((3, 2), (1, 1)))),
        'a tensor repeats its numbers',
        archive(state(tensor((2, 2), (1, 1)))),
    ),
    'counts of a history': (
        archive(history(_count_history=array((1,), data=b'\0' * 8))),
        'a HistoryBuffer does not have one count for each value',
        archive(history()),
    ),
    'a range without a step': (
        archive({'a': call('__builtin__', 'xrange', 0, 5, 0)}),
        'a range needs start, stop and step',
        archive({'a': call('__builtin__', 'xrange', 0, 5, 1)}),
    ),
    'a long range': (
        archive({'a': call('__builtin__', 'xrange', 0, 2**40, 1)}),
        'its values repeat to more than',
        archive({'a': call('__builtin__', 'xrange', 0, 2**10, 1)}),
    ),
    'a namespace of numbers': (
        archive({'a': build(call('argparse', 'Namespace'), {1: 2})}),
        'a Namespace has a forged state',
        archive({'a': build(call('argparse', 'Namespace'), {'__class__': 2})}),
    ),
    'a text of numpy of another length': (
        archive({'a': scalar(dtype('U2', (3, '<', None, None, None, 8, 4, 8)), b'a\0\0\0')}),
        'a text of numpy is of another length',
        archive({'a': scalar(dtype('U2', (3, '<', None, None, None, 8, 4, 8)), b'a\0\0\0' * 2)}),
    ),
    'a text of numpy beyond Unicode': (
        archive({'a': scalar(dtype('U1', (3, '<', None, None, None, 4, 4, 8)), b'\xff' * 4)}),
        'UnicodeDecodeError',
        archive({'a': scalar(dtype('U1', (3, '<', None, None, None, 4, 4, 8)), b'a\0\0\0')}),
    ),
    'a forged dtype of texts': (
        archive({'a': scalar(dtype('U1', (3, '<', None, None, None, 9, 4, 8)), b'a\0\0\0')}),
        'a numpy dtype has a forged state',
        archive({'a': scalar(dtype('U1', (3, '<', None, None, None, 4, 4, 8)), b'a\0\0\0')}),
    ),
    'a ConfigDict of numbers': (
        archive({'a': call('mmengine.config.config', 'ConfigDict', [1])}),
        'a ConfigDict must be made of a dict',
        archive({'a': call('mmengine.config.config', 'ConfigDict', {'b': 1})}),
    ),
    'a frozenset of lists': (
        archive({'a': call('__builtin__', 'frozenset', [[1]])}),
        'a list is the key of a dict',
        archive({'a': call('__builtin__', 'frozenset', [1])}),
    ),
    'numbers that are no counts': (
        archive(state(tensor((True,)))),
        'offset, sizes and strides of a tensor must be counts',
        archive(state(tensor((1,)))),
    ),
    'too many bytes of numpy': (
        archive({'a': array(data=b'\0' * 17)}),
        'numbers of numpy need 16 bytes, and have 17',
        archive({'a': array(data=b'\0' * 16)}),
    ),
    'deep lists': (
        archive(Raw(b']' * 101 + b'a' * 100)),
        'it is nested deeper than 100 levels',
        archive(Raw(b']' * 100 + b'a' * 99)),
    ),
    'a list with a state': (
        archive({'a': build(Raw(value([])), {'b': 1})}),
        'a list has a state, which it cannot have',
        archive({'a': build(call('collections', 'OrderedDict'), {'b': 1})}),
    ),
}


@pytest.mark.parametrize('name', FORGED)
def test_forged_files(name: str, tmp_path: Path) -> None:
    forged, message, genuine = FORGED[name]
    (tmp_path / 'forged.pth').write_bytes(forged)
    (tmp_path / 'genuine.pth').write_bytes(genuine)
    load_safely(tmp_path / 'genuine.pth')
    with pytest.raises(CheckpointError, match=f'forged.pth.*{message}'):
        load_safely(tmp_path / 'forged.pth')


def reason(file: Path) -> str:
    """Why a file is refused that is neither damaged nor forged."""
    with pytest.raises((GlobalRefusedError, UnsupportedError)) as caught:
        check_content(read_archive(file, 'cpu'), file.stat().st_size)
    return caught.value.reason if isinstance(caught.value, GlobalRefusedError) else str(caught.value)


def with_note(thing: Any) -> Any:
    thing.note = 1
    return thing


def in_itself() -> list:
    thing: list = []
    thing.append(thing)
    return thing


UNSUPPORTED: dict[str, tuple[Callable[[], Any], str]] = {
    'sparse tensor': (lambda: torch.eye(3).to_sparse(), r'sparse tensors, .*not supported: .*Tensor.to_dense\(\)'),
    'compressed rows': (lambda: torch.eye(3).to_sparse_csr(), r'sparse tensors, .*not supported: .*to_dense\(\)'),
    'nested tensor': (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), r'nested .*unbind\(\)'),
    'quantized tensor': (lambda: torch.quantize_per_tensor(torch.ones(2), 1, 0, torch.qint8), r'Tensor.dequantize\(\)'),
    'meta tensor': (lambda: torch.ones(2, device='meta'), 'meta tensors, which have no values to load: save .* again'),
    'meta parameter': (lambda: nn.Parameter(torch.ones(2, device='meta')), 'meta tensors, which have no values'),
    'parameter with attributes': (lambda: with_note(nn.Parameter(torch.ones(2))), r'Parameter.detach\(\)'),
    'conjugate': (lambda: torch.ones(2, dtype=torch.complex64).conj(), r'resolve_conj\(\)'),
    'expanded': (lambda: torch.ones(1).expand(5), r'repeats its numbers, .*Tensor.contiguous\(\)'),
    'rare dtype': (lambda: torch.ones(2).to(torch.float8_e8m0fnu), 'numbers of the type float8_e8m0fnu, .*convert'),
    'dtype alone': (lambda: torch.qint8, 'numbers of the type qint8'),
    'layout': (lambda: torch.strided, 'a layout of torch'),
    'storage': (lambda: torch.ones(2).untyped_storage(), 'it holds a Storage, which is not supported'),
    'class': (lambda: OrderedDict, 'it holds a Global, which is not supported'),
    'texts of numpy': (lambda: np.array(['a']), 'an array of numpy is of the dtype U1, which is not supported'),
    'objects of numpy': (lambda: np.array([None]), 'of the dtype O8, which is not supported'),
    'complex numbers of numpy': (lambda: np.ones(2, complex), 'of the dtype c16, which is not supported'),
    'big-endian': (lambda: np.ones(2, '>f8'), 'an array of numpy is big-endian, which is not supported'),
    'dtype of numpy': (lambda: np.dtype('f4'), r'it holds a \w+, which is not supported'),
    'long number as a key': (lambda: {2**70: 1}, 'an int is the key of a dict, which is not supported: .* 64 bits'),
    'odd key': (
        lambda: {torch.float16: 1},
        'a dtype is the key of a dict, which is not supported: use',
    ),
    'tuple as a key': (lambda: {(1, 2): 3}, 'a tuple is the key of a dict, which is not supported: use texts, or n'),
    'default dict of another factory': (lambda: defaultdict(Counter), 'a defaultdict of another factory'),
    'long range': (lambda: range(10**9), 'its values repeat to more than'),
    'list in itself': (in_itself, 'it holds a list that contains itself'),
    'unprintable name': (lambda: {'a\n': torch.ones(1)}, 'a tensor has no printable name'),
}


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('name', UNSUPPORTED)
def test_what_is_not_supported_is_neither_dangerous_nor_damaged(name: str, legacy: bool, tmp_path: Path) -> None:
    make, message = UNSUPPORTED[name]
    file = tmp_path / 'a.pth'
    torch.save({'value': make()}, file, _use_new_zipfile_serialization=not legacy)
    assert re.search(message, reason(file)) and 'run any code' not in reason(file)


def zipped(_: Path) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.ones(2), b=np.ones(2))
    return stream.getvalue()


OTHER_FILES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    'TorchScript': (lambda _: script(), 'it is a TorchScript program, .*torch.jit.load'),
    'arrays': (zipped, 'a zip archive, but torch.save did not write it'),
    'pickle': (lambda _: pickle.dumps({'a': list(range(9))}), 'a pickle that torch.save did not write: load it'),
    'big-endian': (lambda _: archive(state(tensor()), {'byteorder': b'big'}), 'not little-endian'),
    **{
        f'protocol {protocol}': (
            lambda folder, protocol=protocol: saved({'a': [True] * 9}, folder, pickle_protocol=protocol),
            f'its pickle protocol is {message}, and torch.save writes 2: save it again without pickle_protocol',
        )
        for protocol, message in {0: '0 or 1', 1: '0 or 1', 4: '4', 5: '5'}.items()
    },
}


@pytest.mark.parametrize('name', OTHER_FILES)
def test_other_kinds_of_files_are_neither_dangerous_nor_damaged(name: str, tmp_path: Path) -> None:
    make, message = OTHER_FILES[name]
    (tmp_path / 'a.pth').write_bytes(make(tmp_path))
    assert re.search(message, reason(tmp_path / 'a.pth')) and 'run any code' not in reason(tmp_path / 'a.pth')


def test_a_device_that_is_not_here(tmp_path: Path) -> None:
    (tmp_path / 'a.pth').write_bytes(saved({'a': torch.ones(2)}, tmp_path))
    with pytest.raises(UnsupportedError, match='its tensors cannot be moved to nowhere, choose map_location'):
        read_archive(tmp_path / 'a.pth', 'nowhere')


def test_only_unknown_names_are_called_dangerous(tmp_path: Path) -> None:
    (tmp_path / 'a.pth').write_bytes(saved({'a': Path('b')}, tmp_path))
    assert reason(tmp_path / 'a.pth').endswith('such a file can run any code while it is read')


def peak_of_reading(file: Path) -> int:
    """The largest number of bytes that Python held meanwhile, without the tensors."""
    tracemalloc.start()
    try:
        load_safely(file)
    except CheckpointError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
def test_a_file_is_not_held_twice(legacy: bool, tmp_path: Path) -> None:
    torch.save({'a': torch.zeros(2**24)}, tmp_path / 'a.pth', _use_new_zipfile_serialization=not legacy)
    assert peak_of_reading(tmp_path / 'a.pth') < 2**24 * 3  # of 2**26 bytes, in parts of 2**24


def test_a_text_that_claims_4_gb_takes_no_memory(tmp_path: Path) -> None:
    claim = b'\x80\x02X\xff\xff\xff\xffabc.'
    (tmp_path / 'zip.pth').write_bytes(archive(claim))
    (tmp_path / 'row.pth').write_bytes(MAGIC + program(1001) + program({}) + claim)
    assert peak_of_reading(tmp_path / 'zip.pth') < 2**24
    assert peak_of_reading(tmp_path / 'row.pth') < 2**24
