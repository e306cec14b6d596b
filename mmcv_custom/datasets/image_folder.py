"""Finds the images that annotations name, also where the name is written otherwise."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Collection
from urllib.parse import unquote

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm')
# What names may differ in: how both are written for the comparison, and what the difference is.
DIFFERENCES: tuple[tuple[Callable[[str], str], str], ...] = (
    (lambda name: unicodedata.normalize('NFC', name), 'its accents are encoded otherwise'),
    (str.lower, 'it differs in upper and lower case'),
    (lambda name: os.path.splitext(name)[0].lower(), 'it has another suffix'),
)


class ImageFolder:
    """What lies in a folder of images. Folders are listed once, which is much faster than to ask for each file.

    Args:
        root: The folder, ``data_prefix.img`` of a dataset.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._listings: dict[str, frozenset[str]] = {}

    def has(self, name: str) -> bool:
        """Whether a file is there, by its path from the folder."""
        path = os.path.join(self.root, name)
        folder, base = os.path.split(path)
        return base in self._listing(folder)

    def surplus(self, names: Collection[str]) -> int:
        """Number of images in the folders looked at so far that are not among some paths."""
        known = {os.path.normpath(os.path.join(self.root, name)) for name in names}
        return sum(
            base.lower().endswith(SUFFIXES) and os.path.normpath(os.path.join(folder, base)) not in known
            for folder, bases in self._listings.items()
            for base in bases
        )

    def find(self, name: str) -> tuple[str, str] | None:
        """What a file that is not there is probably called: (path from the folder, what is wrong with the name)."""
        slashes = name.replace('\\', '/')
        if slashes != name and self.has(slashes):
            return slashes, 'it has backslashes'
        parts = slashes.split('/')
        if '?d=' in slashes:  # Label Studio: /data/local-files/?d=folder/name
            parts = unquote(slashes.partition('?d=')[2]).split('/')
        for start in range(len(parts)):
            if self.has(candidate := '/'.join(parts[start:])):
                if start == 0 or '?d=' in slashes or '://' in slashes:
                    return candidate, 'it is a URL'
                inside = os.path.normpath(self.root).replace(os.sep, '/').endswith('/'.join(parts[:start]))
                return candidate, 'it begins with the image folder itself' if inside else 'it begins with other folders'
        folder, base = os.path.split(slashes)
        listing = self._listing(os.path.join(self.root, folder))
        for change, what in DIFFERENCES:
            same = [other for other in listing if change(other) == change(base)]
            if len(same) == 1:
                return os.path.join(folder, same[0]), what
        return None

    def _listing(self, folder: str) -> frozenset[str]:
        folder = os.path.normpath(folder)
        if folder not in self._listings:
            try:
                self._listings[folder] = frozenset(os.listdir(folder))
            except (OSError, ValueError):  # ValueError: a name with a null byte
                self._listings[folder] = frozenset()
        return self._listings[folder]
