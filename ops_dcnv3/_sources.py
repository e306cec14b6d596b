"""The C++ and CUDA sources of the operator and their fingerprint.

Standard library only: ``setup.py`` runs this file before the package can be imported, so that the fingerprint compiled
into a library and the one computed from the files at run time come from the same lines.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

CSRC = Path(__file__).resolve().parent / 'csrc'
SOURCE_SUFFIXES = frozenset({'.h', '.cpp', '.cuh', '.cu'})


def source_files() -> list[Path]:
    """All C++ and CUDA files of the operator, sorted; empty where a wheel came without them."""
    return sorted(path for path in CSRC.rglob('*') if path.suffix in SOURCE_SUFFIXES)


def source_hash() -> str | None:
    """SHA-256 (16 hex digits) over names and contents of :func:`source_files`; None where there are none."""
    files = source_files()
    if not files:
        return None
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(CSRC).as_posix().encode() + b'\0' + path.read_bytes() + b'\0')
    return digest.hexdigest()[:16]
