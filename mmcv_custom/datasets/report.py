"""What the data check found: errors, which stop a training, and notes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

LIMIT = 10  # error lines of a kind


class Harm(IntEnum):
    """What an error does to a run, the worst first."""

    WRONG = 0  # labels, boxes, masks or files mean something other than intended, without a word
    LOST = 1  # objects or images are left out, without a word
    FAILS = 2  # the run dies


class Report:
    """Errors and notes of the data check.

    Attributes:
        contents: What was checked, per split: counts such as ``{'images': 8, 'objects': 54}``.
        notes: Per split, what is worth knowing and stops nothing: counts by description, such as
            ``{'grey images': 9}``.
        unchecked: What does not apply to these data, in words, each once.
    """

    def __init__(self) -> None:
        self.contents: dict[str, Counter[str]] = defaultdict(Counter)
        self.notes: dict[str, Counter[str]] = defaultdict(Counter)
        self.unchecked: list[str] = []
        self._places: Counter[tuple[Harm, str, str]] = Counter()
        self._lines: dict[tuple[Harm, str, str], list[str]] = defaultdict(list)
        self._hidden: Counter[tuple[Harm, str, str]] = Counter()  # lines beyond the limit

    def error(self, harm: Harm, kind: str, split: str, text: str, count: int = 1) -> None:
        """Adds an error.

        Args:
            harm: What it does to a run.
            kind: Kind of error in two or three words, such as ``'box not finite'``.
            split: ``'train'``, ``'val'`` or ``'test'``.
            text: One line that names the file, the id, the value, what was expected and the way out.
            count: Number of objects or files that the line stands for.
        """
        key = harm, kind, split
        self._places[key] += count
        if len(self._lines[key]) < LIMIT:
            self._lines[key].append(' '.join(text.split()))
        else:
            self._hidden[key] += 1

    def note(self, split: str, description: str, count: int = 1) -> None:
        """Counts something that data of the field legitimately hold, such as ``'grey images'``.

        The summary adds the count to the description, unless this begins with it: ``'9 of 54 objects are not used'``.
        """
        if count:
            self.notes[split][description] += count

    def leave_out(self, reason: str) -> None:
        """Says what was not checked and why."""
        if reason not in self.unchecked:
            self.unchecked.append(reason)

    @property
    def failed(self) -> bool:
        """Whether there is an error."""
        return bool(self._lines)

    @property
    def error_count(self) -> int:
        """Number of error lines, those beyond the limit too."""
        return sum(map(len, self._lines.values())) + self._hidden.total()

    def kinds(self, split: str | None = None) -> set[str]:
        """The kinds of the errors, in one split or in all."""
        return {kind for _, kind, of in self._lines if split in (None, of)}

    def error_lines(self) -> Iterator[str]:
        """The errors, the most harmful first, at most ten of a kind and split."""
        for key in sorted(self._lines, key=lambda key: key[0]):
            _, kind, split = key
            yield from (f'{split}: {kind}: {line}' for line in self._lines[key])
            if more := self._hidden[key]:
                yield f'{split}: {kind}: {more:,} more like this'

    def summary(self) -> str:
        """Contents, notes and what was not checked, in one line."""
        parts = []
        for split, counts in self.contents.items():
            parts.append(f'{split}: ' + ', '.join(f'{count:,} {name}' for name, count in counts.items()))
        for split, notes in self.notes.items():
            parts.append(f'notes on {split}: ' + '; '.join(_counted(name, count) for name, count in notes.items()))
        if self.unchecked:
            parts.append(f'not checked: {", ".join(self.unchecked)}')
        return '; '.join(parts)

    def to_dict(self) -> dict[str, Any]:
        """The whole report as plain containers, as for JSON."""
        return {
            'errors': [
                {
                    'harm': harm.name,
                    'kind': kind,
                    'split': split,
                    'count': self._places[harm, kind, split],
                    'lines': lines,
                }
                for (harm, kind, split), lines in sorted(self._lines.items(), key=lambda item: item[0][0])
            ],
            'contents': {split: dict(counts) for split, counts in self.contents.items()},
            'notes': {split: dict(counts) for split, counts in self.notes.items()},
            'unchecked': self.unchecked,
        }


def _counted(name: str, count: int) -> str:
    return name if name[:1].isdigit() else f'{name} ({count:,})'
