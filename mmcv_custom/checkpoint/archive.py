"""The two kinds of files that ``torch.save`` writes: zip archives, and rows of pickles, which torch 1.5 wrote."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .unpickling import Storage, Unpickler, UnsupportedError, is_count, require, require_supported

MapLocation = str | torch.device | dict[str, str] | Callable | None
_ZIP = b'PK\x03\x04'
_LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # the number with which torch marks its rows of pickles
_CHUNK = 2**24  # bytes that are read at a time


class _BoundedReader(io.BufferedReader):
    """A file of which a read sets aside no more memory than the file has bytes, whatever size a pickle claims."""

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self.size = os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        left = max(self.size - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


def read_archive(file: Path, map_location: MapLocation) -> Any:
    """The content of a file that ``torch.save`` wrote.

    No tensor takes more memory than its bytes in the file, which are checked against the sums of the archive.

    Args:
        file: Local file.
        map_location: Device of the tensors, ``None`` for the one they were saved from, or as ``torch.load`` takes it.

    Raises:
        GlobalRefusedError: The file names a class or function that no checkpoint needs.
        UnsupportedError: It is of another kind than ``torch.save`` writes by itself, or holds values of a type that is
            not supported, or its tensors cannot be moved to ``map_location``.
        Exception: It is damaged or forged. Which type it is depends on the damage.
    """
    with _BoundedReader(io.FileIO(file)) as opened:
        head = opened.read(len(_LEGACY))
        if head.startswith(_ZIP):
            return _read_zip(opened, map_location)
        require(len(head) > 0, 'it is empty')
        if head == _LEGACY:
            return _read_legacy(opened, map_location)
        require_supported(
            head[:1] != pickle.PROTO or len(head) < len(_LEGACY),
            'it is a pickle that torch.save did not write: load it as its program does, and save it with torch.save',
        )
        raise pickle.UnpicklingError('torch.save did not write it')


def _read_zip(opened: _BoundedReader, map_location: MapLocation) -> Any:
    with zipfile.ZipFile(opened) as archive:
        entries = archive.infolist()
        records = {entry.filename.partition('/')[2]: entry for entry in entries}
        require_supported(
            'constants.pkl' not in records,
            'it is a TorchScript program, not a checkpoint: load it with torch.jit.load, and save its state_dict()',
        )
        require_supported('data.pkl' in records, 'it is a zip archive, but torch.save did not write it: no data.pkl')
        require(len(records) == len(entries), 'several of its records have the same name')
        stored = all(entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1 for entry in entries)
        require_supported(
            stored, 'its records are compressed or encrypted, as torch.save never does: load it and save it again'
        )
        require(sum(entry.file_size for entry in entries) <= opened.size, 'its records overlap')
        if 'byteorder' in records:
            little = archive.read(records['byteorder']) == b'little'
            require_supported(little, 'its numbers are not little-endian: save it again on a little-endian machine')
        storages: dict[str, Storage] = {}

        def storage(name: tuple) -> Storage:
            dtype, key, location, numel = name
            if key not in storages:
                require(f'data/{key}' in records, f'the record of storage {key:.20} is missing')
                record = records[f'data/{key}']
                nbytes = numel * dtype.itemsize
                require(record.file_size == nbytes, f'storage {key:.20} has {record.file_size} of {nbytes} bytes')
                memory = torch.UntypedStorage(nbytes)
                with archive.open(record) as stream:
                    _read_into(memory, stream)
                storages[key] = Storage(_move(memory, location, map_location), dtype, nbytes)
            known = storages[key]
            require(known.dtype is dtype and known.nbytes == numel * dtype.itemsize, 'a storage has two sizes')
            return known

        pickled = archive.read(records['data.pkl'])
        return Unpickler(io.BytesIO(pickled), len(pickled), storage).load()


def _read_legacy(stream: _BoundedReader, map_location: MapLocation) -> Any:
    version = Unpickler(stream, stream.size).load()
    require_supported(version == 1001, 'it is of an unknown version of torch.save: save it again with a newer torch')
    Unpickler(stream, stream.size).load()  # facts of the machine that wrote it
    storages: dict[str, Storage] = {}
    claimed = 0

    def storage(name: tuple) -> Storage:
        nonlocal claimed
        dtype, key, location, numel, *view = name
        nbytes = numel * dtype.itemsize
        if key not in storages:
            claimed += nbytes
            require(claimed <= stream.size, f'its storages claim {claimed} of {stream.size} bytes')
            storages[key] = Storage(_move(torch.UntypedStorage(nbytes), location, map_location), dtype, nbytes)
        known = storages[key]
        require(known.dtype is dtype and known.nbytes == nbytes, 'a storage has two sizes')
        if not view or view[0] is None:
            return known
        require(type(view[0]) is tuple and len(view[0]) == 3, 'a view of a storage has no bounds')
        _, start, length = view[0]
        require(is_count(start) and is_count(length) and start + length <= numel, 'a view is larger than its storage')
        return Storage(known.memory, dtype, length * dtype.itemsize, start)

    content = Unpickler(stream, stream.size, storage).load()
    keys = Unpickler(stream, stream.size).load()
    require(type(keys) is list and all(type(key) is str for key in keys), 'the list of its storages is forged')
    require(sorted(keys) == sorted(storages), 'the list of its storages is not complete')
    for key in keys:
        known = storages[key]
        numel = int.from_bytes(stream.read(8), 'little')
        require(numel * known.dtype.itemsize == known.nbytes, f'storage {key:.20} has two sizes')
        on_cpu = known.memory.device.type == 'cpu'
        memory = known.memory if on_cpu else torch.UntypedStorage(known.nbytes)
        _read_into(memory, stream)
        if not on_cpu:
            known.memory.copy_(memory)
    return content


def _read_into(memory: torch.UntypedStorage, stream: Any) -> None:
    view = torch.empty(0, dtype=torch.uint8).set_(memory).numpy()
    for start in range(0, len(view), _CHUNK):
        room = view[start : start + _CHUNK]
        part = stream.read(len(room))
        require(len(part) == len(room), 'it ends within a tensor')
        room[:] = np.frombuffer(part, np.uint8)


def _move(memory: torch.UntypedStorage, location: str, target: MapLocation) -> torch.UntypedStorage:
    if isinstance(target, dict):
        target = target.get(location, location)
    moved = target(memory, location) if callable(target) else None
    if moved is None:
        place = str(target) if isinstance(target, str | torch.device) else location
        try:
            moved = torch.serialization.default_restore_location(memory, place)
        except RuntimeError as error:  # no such device here, or it has not enough memory
            raise UnsupportedError(f'its tensors cannot be moved to {place}, choose map_location: {error}') from error
    return moved
