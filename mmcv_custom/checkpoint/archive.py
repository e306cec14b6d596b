"""The two kinds of files that ``torch.save`` writes: zip archives, and since torch 1.6 no longer, rows of pickles."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from .unpickling import Storage, Unpickler, is_count, require

MapLocation = str | torch.device | dict[str, str] | Callable | None
_ZIP = b'PK\x03\x04'
_LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # the number with which torch marks its rows of pickles
_CHUNK = 2**24


def read_archive(file: Path, map_location: MapLocation) -> Any:
    """The content of a file that ``torch.save`` wrote.

    No tensor takes more memory than its bytes in the file, which are checked against the sums of the archive.

    Args:
        file: Local file.
        map_location: Device of the tensors, ``None`` for the one they were saved from, or as ``torch.load`` takes it.

    Raises:
        GlobalRefusedError: The file names a class or function that no checkpoint needs.
        Exception: It is damaged or forged. Which type it is depends on the damage.
    """
    with file.open('rb') as opened:
        head = opened.read(len(_LEGACY))
        opened.seek(0)
        if head.startswith(_ZIP):
            return _read_zip(opened, os.path.getsize(file), map_location)
        require(len(head) > 0, 'it is empty')
        require(head == _LEGACY, 'torch.save did not write it')
        return _read_legacy(io.BytesIO(opened.read()), map_location)


def _read_zip(opened: BinaryIO, size: int, map_location: MapLocation) -> Any:
    with zipfile.ZipFile(opened) as archive:
        entries = archive.infolist()
        records = {entry.filename.partition('/')[2]: entry for entry in entries}
        require(len(records) == len(entries), 'several of its records have the same name')
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        require(stored, 'its records are compressed, as torch.save never does')
        require(sum(entry.file_size for entry in entries) <= size, 'its records overlap')
        require('constants.pkl' not in records, 'it is a TorchScript program, not a checkpoint')
        require('data.pkl' in records, 'it is a zip archive without data.pkl, which torch.save did not write')
        if 'byteorder' in records:
            require(archive.read(records['byteorder']) == b'little', 'its numbers are not little-endian')
        storages: dict[str, Storage] = {}

        def storage(name: tuple) -> Storage:
            dtype, key, location, numel = name
            if key not in storages:
                require(f'data/{key}' in records, f'the record of storage {key:.20} is missing')
                record = records[f'data/{key}']
                nbytes = numel * dtype.itemsize
                require(record.file_size == nbytes, f'storage {key:.20} has {record.file_size} of {nbytes} bytes')
                with archive.open(record) as stream:
                    memory = _move(_read_memory(stream, nbytes), location, map_location)
                storages[key] = Storage(memory, dtype, nbytes)
            known = storages[key]
            require(known.dtype is dtype and known.nbytes == numel * dtype.itemsize, 'a storage has two sizes')
            return known

        return Unpickler(io.BytesIO(archive.read(records['data.pkl'])), storage).load()


def _read_legacy(stream: io.BytesIO, map_location: MapLocation) -> Any:
    size = len(stream.getbuffer())
    stream.seek(len(_LEGACY))
    require(Unpickler(stream).load() == 1001, 'it is of an unknown version of torch.save')
    Unpickler(stream).load()  # facts of the machine that wrote it
    storages: dict[str, Storage] = {}

    def storage(name: tuple) -> Storage:
        dtype, key, location, numel, *view = name
        nbytes = numel * dtype.itemsize
        if key not in storages:
            claimed = nbytes + sum(known.nbytes for known in storages.values())
            require(claimed <= size, f'its storages claim {claimed} of {size} bytes')
            storages[key] = Storage(_move(torch.UntypedStorage(nbytes), location, map_location), dtype, nbytes)
        known = storages[key]
        require(known.dtype is dtype and known.nbytes == nbytes, 'a storage has two sizes')
        if not view or view[0] is None:
            return known
        require(type(view[0]) is tuple and len(view[0]) == 3, 'a view of a storage has no bounds')
        _, start, length = view[0]
        require(is_count(start) and is_count(length) and start + length <= numel, 'a view is larger than its storage')
        return Storage(known.memory, dtype, length * dtype.itemsize, start)

    content = Unpickler(stream, storage).load()
    keys = Unpickler(stream).load()
    require(type(keys) is list and all(type(key) is str for key in keys), 'the list of its storages is forged')
    require(sorted(keys) == sorted(storages), 'the list of its storages is not complete')
    for key in keys:
        known = storages[key]
        numel = int.from_bytes(stream.read(8), 'little')
        require(numel * known.dtype.itemsize == known.nbytes, f'storage {key:.20} has two sizes')
        known.memory.copy_(_read_memory(stream, known.nbytes))
    return content


def _read_memory(stream: Any, nbytes: int) -> torch.UntypedStorage:
    memory = torch.empty(nbytes, dtype=torch.uint8)
    view = memory.numpy()
    for start in range(0, nbytes, _CHUNK):
        part = stream.read(min(_CHUNK, nbytes - start))
        require(len(part) == min(_CHUNK, nbytes - start), 'it ends within a tensor')
        view[start : start + len(part)] = np.frombuffer(part, np.uint8)
    return memory.untyped_storage()


def _move(memory: torch.UntypedStorage, location: str, target: MapLocation) -> torch.UntypedStorage:
    if isinstance(target, dict):
        target = target.get(location, location)
    moved = target(memory, location) if callable(target) else None
    if moved is None:
        place = str(target) if isinstance(target, str | torch.device) else location
        moved = torch.serialization.default_restore_location(memory, place)
    return moved
