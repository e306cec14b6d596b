"""Remembers, below the work folder, which data passed the check."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from mmengine.config import Config

from ..errors import UserError
from .images import HEADERS
from .sources import sources

FILE = 'data_check.json'
KEPT = 20  # entries of a file


class Cache:
    """The checks that data passed. Only the check of the same data, config and version finds its entry.

    Args:
        work_dir: Folder of the file that holds them.
    """

    def __init__(self, work_dir: str) -> None:
        self._file = Path(work_dir, FILE)

    def find(self, key: str) -> str | None:
        """The summary of a check that was passed; ``None`` if there was none."""
        return self._entries().get(key)

    def add(self, key: str, summary: str) -> None:
        """Remembers a check that was passed.

        Raises:
            UserError: The file cannot be written.
        """
        entries = {**self._entries(), key: summary}
        draft = self._file.with_name(f'{FILE}.{os.getpid()}')  # several jobs may share a work folder
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(dict(list(entries.items())[-KEPT:]), indent=1))
            draft.replace(self._file)
        except OSError as problem:
            with suppress(OSError):
                draft.unlink()
            raise UserError(
                f'cannot write {self._file}, which remembers the data check: {problem.strerror}; move it away'
            ) from problem

    def _entries(self) -> dict[str, str]:
        try:
            entries = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}  # nothing, or not ours: the data are checked again
        return entries if isinstance(entries, dict) else {}


def key_of(cfg: Config, splits: Collection[str], full: bool, version: str) -> str:
    """A digest of the data part of a config, our version, and the sizes and times of the files and folders it names.

    In folders of more than 5,000 files only the names and the folder's time count: asking for each file takes long on
    network drives.
    """
    digest = hashlib.sha256()
    parts = [cfg.get(f'{split}_{part}') for split in sorted(splits) for part in ('dataloader', 'evaluator')]
    parts += [cfg.get('default_scope'), cfg.get('model')]  # the ignored label is an option of losses
    digest.update(json.dumps([version, full, parts], default=repr).encode())
    for split in sorted(splits):
        for source in sources(cfg, split):
            judged = [metric.get('ann_file') for metric in source.evaluators]
            classes = (source.cfg.get('metainfo') or {}).get('classes')
            for path in [*source.paths(), *(name for name in (*judged, classes) if isinstance(name, str))]:
                for stamp in _stamps(path):
                    digest.update(repr(stamp).encode())
    return digest.hexdigest()


def _stamps(path: str) -> Iterator[tuple]:
    """What changes when a file, or a file in a folder, is replaced."""
    if not os.path.isdir(path):
        status = os.stat(path) if os.path.exists(path) else None
        yield path, status and (status.st_size, status.st_mtime_ns)
        return
    for folder, subfolders, names in os.walk(path, followlinks=True):
        subfolders.sort()
        yield folder, os.stat(folder).st_mtime_ns, sorted(names)
        if len(names) <= HEADERS:
            for name in sorted(names):
                yield from _stamps(os.path.join(folder, name))
