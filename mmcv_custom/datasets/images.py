"""What the files of images say about themselves, without decoding them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import mmcv
import numpy as np
from PIL import Image, UnidentifiedImageError

HEADERS = 5000  # images of which the header is read without --full
MASKS = 500  # images and masks that are decoded without --full
DEEP_IMAGES = 8  # images of more than 8 bits that are loaded, to see how dark they become
DARK = 16  # of 255: images that nowhere reach it are as good as black

ORIENTATION = 0x0112  # EXIF tag
# Formats that mmcv turns as EXIF says. It loads others as they are stored, TIFF turned by their own tag like Pillow.
TURNED = ('JPEG', 'MPO', 'PNG')
T = TypeVar('T')


@dataclass(frozen=True)
class Header:
    """The header of an image file.

    Attributes:
        width, height: Stored size in pixels.
        mode: Pillow's name of the channels, such as ``'RGB'``, ``'L'``, ``'P'`` or ``'I;16'``.
        format: Pillow's name of the format, such as ``'PNG'``.
        orientation: EXIF orientation that mmcv applies, 1 to 8; 1 is upright.
    """

    width: int
    height: int
    mode: str
    format: str
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height as mmcv loads the image: turned as EXIF says."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


@contextmanager
def open_image(path: str) -> Iterator[Image.Image]:
    """Opens an image of any size with Pillow, which otherwise takes very large ones for an attack."""
    with patch.object(Image, 'MAX_IMAGE_PIXELS', None), Image.open(path) as image:
        yield image


def read_header(path: str) -> Header:
    """The header of an image file.

    Raises:
        ValueError: There is no such file, it is no image or cut short. The text says which.
    """
    try:
        with open_image(path) as image:
            # Pillow would decode a PNG without EXIF data, to look for them behind the pixels.
            has_exif = image.format in TURNED and (image.format != 'PNG' or 'exif' in image.info)
            exif = image.getexif() if has_exif else {}
            orientation = exif.get(ORIENTATION, 1)
            width, height = image.size
            header = Header(
                width, height, image.mode, image.format or '', orientation if orientation in range(1, 9) else 1
            )
            if _may_be_cut_short(path, header.format):
                image.load()
            return header
    except FileNotFoundError:
        raise ValueError('there is no such file') from None
    except IsADirectoryError:
        raise ValueError('it is a folder') from None
    except UnidentifiedImageError:
        raise ValueError('it is empty' if os.path.getsize(path) == 0 else 'it is no image') from None
    except Exception as problem:  # Pillow's decoders raise errors of many types on damaged files
        raise ValueError(f'it cannot be read ({problem})') from problem


def _may_be_cut_short(path: str, kind: str) -> bool:
    """Whether the end of a PNG or JPEG file is missing. Files with something behind the end are decoded to be sure."""
    end = {'PNG': b'IEND\xaeB`\x82', 'JPEG': b'\xff\xd9'}.get(kind)
    if end is None:
        return False
    with open(path, 'rb') as file:
        file.seek(-min(len(end), os.path.getsize(path)), os.SEEK_END)
        return file.read() != end


def too_dark(paths: Sequence[str], transforms: Iterable[Mapping[str, Any]]) -> str | None:
    """What becomes of images of more than 8 bits when a pipeline loads them, if they become black.

    OpenCV divides 16 bits by 256, whatever range the images use: 10 bits, 0 to 1023, become 0 to 3.

    Args:
        paths: Files with more than 8 bits per channel, of which some are loaded.
        transforms: The transforms of the pipeline. Only mmcv's ``LoadImageFromFile`` is known.

    Returns:
        An explanation; ``None`` if they do not become black, or if they cannot be loaded.
    """
    loader = next((step for step in transforms if str(step.get('type')).endswith('LoadImageFromFile')), None)
    if loader is None:
        return None
    flag, backend = str(loader.get('color_type', 'color')), loader.get('imdecode_backend', 'cv2')
    loaded = stored = 0
    for path in sample(paths, DEEP_IMAGES):
        content = Path(path).read_bytes()
        pixels, unchanged = (mmcv.imfrombytes(content, *how) for how in ((flag, 'bgr', backend), ('unchanged',)))
        if pixels is None or unchanged is None:
            return None
        loaded, stored = max(loaded, int(pixels.max())), max(stored, int(unchanged.max()))
    if not loaded < DARK <= stored:
        return None
    return (
        f'the values 0 to {stored} of this image and others are loaded as 0 to {loaded} of 255, which is black; '
        'save them as images of 8 bits'
    )


def sample(items: Sequence[T], size: int) -> list[T]:
    """At most ``size`` items, evenly spaced, the same at every call."""
    if len(items) <= size:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, size).round().astype(int)]
