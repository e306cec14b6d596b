"""Run lengths of masks (RLE) as pycocotools writes them, read without it: it does not survive malformed ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def compressed_sums(strings: Sequence[str]) -> NDArray[np.int64]:
    """Numbers of pixels that compressed run lengths cover, and that belong to the mask.

    A character holds five bits of a number, the lowest first; a bit of 32 says that more follow, and the highest bit of
    the last five is the sign. From the fourth number on, a number is the difference to the one two places before.

    Args:
        strings: ``counts`` of N masks.

    Returns:
        (N, 2) sums of all run lengths and of those of the mask; -1 for a string that is malformed or holds a negative
        run length.
    """
    sums = np.full((len(strings), 2), -1, np.int64)
    codes = [string.encode('utf-8', 'surrogatepass') for string in strings]
    # A number needs at most 7 characters, and the last of a string has no bit of 32.
    lengths = np.array([len(code) for code in codes], np.int64)
    chars = np.frombuffer(b''.join(codes), np.uint8).astype(np.int64) - 48
    ends = np.cumsum(lengths)
    of_string = np.repeat(np.arange(len(codes)), lengths)
    good = lengths > 0
    good[of_string[(chars < 0) | (chars > 63)]] = False
    good[good] = (chars[ends[good] - 1] & 32) == 0
    keep = good[of_string]
    chars, of_string = chars[keep], of_string[keep]
    if not len(chars):
        return sums

    last = (chars & 32) == 0  # character of a number
    starts = np.concatenate(([0], np.flatnonzero(last)[:-1] + 1))
    place = np.arange(len(chars)) - np.repeat(starts, np.diff(np.append(starts, len(chars))))
    good[of_string[place >= 7]] = False
    place = np.minimum(place, 6)
    bits = (chars & 31) << (5 * place)
    bits -= np.where(last & (chars & 16 != 0), np.int64(32) << (5 * place), 0)
    numbers, of_string = np.add.reduceat(bits, starts), of_string[starts]

    first = np.flatnonzero(np.diff(of_string, prepend=-1))  # number of each string
    sizes = np.diff(np.append(first, len(numbers)))
    index = np.arange(len(numbers)) - np.repeat(first, sizes)
    counts = numbers.copy()
    for parity in (0, 1):
        mine = (index % 2 == parity) & (index > 0)
        added = np.cumsum(np.where(mine, numbers, 0))
        before = np.repeat(np.concatenate(([0], added))[first], sizes)
        counts[mine] = (added - before)[mine]
    good[of_string[counts < 0]] = False
    sums[of_string[first], 0] = np.add.reduceat(counts, first)
    sums[of_string[first], 1] = np.add.reduceat(np.where(index % 2 == 1, counts, 0), first)
    sums[~good] = -1
    return sums
