"""Decodes a large JSON mapping piece by piece, so that its objects need not be in memory all at once."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator
from typing import Any

_SPACE = re.compile(r'[ \t\n\r]*')
_BEHIND_ITEM = re.compile(r'[ \t\n\r]*([,\]])[ \t\n\r]*')
_DECODER = json.JSONDecoder()


def decode(text: str, position: int) -> Any:
    """The value that begins at a position."""
    return _DECODER.raw_decode(text, position)[0]


class JsonMembers:
    """Iterates over a JSON mapping.

    Yields keys and values. A list is an iterator over (item, position in the text): nothing of it is decoded before it
    is asked for, and nothing is kept.

    Raises:
        ValueError: The text is not JSON, or no mapping.
    """

    def __init__(self, text: str) -> None:
        self._text, self._position = text, 0

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        if self._text.startswith('\ufeff'):
            raise ValueError('it has a byte order mark, which Python does not read')
        self._take('{')
        more = not self._is_next('}')
        while more:
            if not self._text.startswith('"', self._position):
                raise json.JSONDecodeError('Expecting a key in double quotes', self._text, self._position)
            key, _ = self._value()
            self._take(':')
            if self._is_next('['):
                items = self._items()
                yield key, items
                deque(items, maxlen=0)  # what was not asked for
            else:
                yield key, self._value()[0]
            more = self._take(',}') == ','
        if self._position < len(self._text):
            raise json.JSONDecodeError('Extra data', self._text, self._position)

    def _items(self) -> Iterator[tuple[Any, int]]:
        text, start = self._text, self._position  # local names: this loop takes the time of large files
        more = not self._is_next(']')
        while more:
            item, end = _DECODER.raw_decode(text, start)
            yield item, start
            separator = _BEHIND_ITEM.match(text, end)
            if separator is None:
                raise json.JSONDecodeError("Expecting ',' or ']'", text, end)
            more = separator[1] == ','
            start = self._position = separator.end()

    def _value(self) -> tuple[Any, int]:
        start = self._position
        value, end = _DECODER.raw_decode(self._text, start)
        self._skip_space(end)
        return value, start

    def _is_next(self, char: str) -> bool:
        """Takes a character if it comes next."""
        if not self._text.startswith(char, self._position):
            return False
        self._skip_space(self._position + 1)
        return True

    def _take(self, chars: str) -> str:
        """Takes the next character, which must be one of some."""
        if self._position == 0:
            self._skip_space(0)
        char = self._text[self._position : self._position + 1]
        if not char or char not in chars:
            expected = ' or '.join(map(repr, chars))
            raise json.JSONDecodeError(f'Expecting {expected}', self._text, self._position)
        self._skip_space(self._position + 1)
        return char

    def _skip_space(self, start: int) -> None:
        match = _SPACE.match(self._text, start)
        self._position = match.end() if match else start
