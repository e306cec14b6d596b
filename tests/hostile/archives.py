"""Files that are damaged, forged or of another kind: zip archives, rows of pickles, safetensors."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable

import torch

from tests.hostile.assembler import (
    BARE,
    CANARY,
    MAGIC,
    Raw,
    archive,
    call,
    legacy,
    program,
    safetensors,
    state,
    storage,
    tensor,
    value,
)

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
