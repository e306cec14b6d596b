"""The error that users see, and what may stand in its text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ..errors import UserError


class CheckpointError(UserError):
    """A checkpoint cannot be read, or is not of the kind that is needed."""


def one_line(text: object, limit: int = 300) -> str:
    """Text from a file or another library, fit for a message: one line, no control characters, not long."""
    line = ' '.join(str(text).split())
    line = ''.join(character if character.isprintable() else '?' for character in line)
    return line if len(line) <= limit else f'{line[:limit]}...'


def redacted(source: str | os.PathLike[str]) -> str:
    """A path or URL without what must not be printed: user name, password, query (which may hold tokens), fragment."""
    source = os.fsdecode(source)
    if '://' not in source:
        return one_line(source)
    try:
        parts = urlsplit(source)
        parts.port  # noqa: B018 - raises if it is no number: a password perhaps
    except ValueError:
        return one_line(source.split('://')[0]) + '://...'
    login, _, host = parts.netloc.rpartition('@')
    place = f'***@{host}' if login else host
    return one_line(urlunsplit((parts.scheme, place, parts.path, '...' if parts.query else '', '')))


def first_few(names: Sequence[Any], limit: int = 3) -> str:
    """The first few names as text, for messages."""
    return ', '.join(map(str, names[:limit])) + (', ...' if len(names) > limit else '') or 'nothing'
