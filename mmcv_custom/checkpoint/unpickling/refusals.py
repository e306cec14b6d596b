"""Why a file is refused: it names unknown code, it uses what is not supported, or it is damaged or forged."""

from __future__ import annotations

import pickle


class GlobalRefusedError(pickle.UnpicklingError):
    """A pickle names a class or function that no checkpoint needs. The text of the error begins with its name.

    Args:
        name: Full name of the class or function.
        unsupported: For a name that torch itself writes: the tensors that need it, and how to save them instead. Such
            a name is no sign of danger.

    Attributes:
        reason: What is wrong with the file, to follow "refused to read FILE: ".
    """

    def __init__(self, name: str, unsupported: str = '') -> None:
        super().__init__(name)
        self.reason = f'it needs the global {name}, and such a file can run any code while it is read'
        if unsupported:
            self.reason = f'it holds {unsupported} (it needs the global {name})'


class UnsupportedError(pickle.UnpicklingError):
    """A file may be intact, but uses what the reader does not support. The text tells what, and the way out."""


def require(condition: bool, lie: str) -> None:
    """Raises :class:`pickle.UnpicklingError` with the text unless the condition holds; for damaged and forged files."""
    if not condition:
        raise pickle.UnpicklingError(lie)


def require_supported(condition: bool, problem: str) -> None:
    """Raises :class:`UnsupportedError` with the text unless the condition holds."""
    if not condition:
        raise UnsupportedError(problem)


def unfolded_limit(size: int) -> int:
    """The bytes to which the content of a file of this size may unfold, where it names the same value many times."""
    return 16 * size + 2**20


def kind_of(value: object) -> str:
    """The type of a value with its article, for messages: ``'a list'``, ``'an int'``."""
    name = type(value).__name__
    return f'{"an" if name[0] in "aeiouAEIO" else "a"} {name}'


def is_count(value: object) -> bool:
    """Whether a value from a file can be a size or an index. ``True`` is not one, and numbers end at 2^63."""
    return type(value) is int and 0 <= value < 2**63
