"""The demo's data: real handwritten digits pasted on real photographs, with exact masks.

Everything comes out of the scikit-learn and scikit-image packages, so nothing is downloaded. The arithmetic is on
whole numbers and the random numbers are raw PCG64 output, a stream that NumPy guarantees: a seed gives the same pixels
on every machine. Below the output folder::

    images/{train,val}/00000.png     RGB
    masks/{train,val}/00000.png      8 bits: 0 is background, 1 + d is the digit d; no value is ignored
    annotations/{train,val}.json     COCO instances, category 1 + d, masks as run lengths

Training and validation share neither a handwritten digit nor a photograph. An image depends on seed, split, index and
size only: a small dataset is the beginning of a large one.

python tools/demo/digits.py data/digits --train 1500 --val 100
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

CLASSES = tuple('0123456789')
SEED = 2
STAMP = 'digits.json'  # holds the arguments of generate()
ENTRIES = {'images', 'masks', 'annotations', STAMP}
# scikit-image's names, and scikit-learn's two with their suffix. All are PNG files, or JPEG files of full chroma, which
# decoders agree on.
PHOTOS = {
    'train': (
        'astronaut',
        'brick',
        'cat',
        'china.jpg',
        'coffee',
        'coins',
        'grass',
        'hubble_deep_field',
        'immunohistochemistry',
        'moon',
    ),
    'val': ('camera', 'flower.jpg', 'gravel', 'rocket', 'stereo_motorcycle'),
}
# The 1,797 digits are stored by writer, so that a cut separates most writers too.
DIGITS = {'train': slice(0, 1400), 'val': slice(1400, None)}
MIN_CONTRAST = 60  # grey levels between a digit's colour and the mean of what it covers


class RandomIntegers:
    """Random integers from the raw stream of PCG64, seeded by any number of non-negative integers."""

    def __init__(self, *seed: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(seed))

    def __call__(self, low: int, high: int) -> int:
        """An integer of [low, high), uniform up to 2^-50."""
        return low + int(self._bits.random_raw()) % (high - low)


@cache
def load_photo(name: str) -> NDArray[np.uint8]:
    """A photograph by its name in PHOTOS as (H, W, 3)."""
    if name.endswith('.jpg'):
        from sklearn.datasets import load_sample_image

        return load_sample_image(name)
    import skimage.data

    photo = getattr(skimage.data, name)()
    if isinstance(photo, tuple):  # a stereo pair with its disparities
        photo = photo[0]
    return photo if photo.ndim == 3 else np.repeat(photo[..., None], 3, axis=2)


@cache
def load_digits(split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The split's handwritten digits as (N, 10, 10) ink from 0 to 16, with an empty frame, and values (N,)."""
    from sklearn import datasets

    digits = datasets.load_digits()
    ink = np.pad(digits.images.astype(np.int64), ((0, 0), (1, 1), (1, 1)))
    return ink[DIGITS[split]], digits.target[DIGITS[split]].astype(np.int64)


def background(random_int: RandomIntegers, split: str, size: int) -> NDArray[np.int64]:
    """A window of a photograph, shrunk by 1, 2 or 3, darkened and tinted, half of them mirrored.

    Returns:
        (size, size, 3) from 0 to 255.
    """
    photo = load_photo(PHOTOS[split][random_int(0, len(PHOTOS[split]))])
    shrink = random_int(1, 1 + min(3, min(photo.shape[:2]) // size))
    span = size * shrink
    top, left = random_int(0, photo.shape[0] - span + 1), random_int(0, photo.shape[1] - span + 1)
    window = photo[top : top + span, left : left + span].astype(np.int64)
    window = window.reshape(size, shrink, size, shrink, 3).sum(axis=(1, 3)) // shrink**2
    if random_int(0, 2):
        window = window[:, ::-1]
    gain = np.array([random_int(40, 91) for _ in range(3)])
    return np.clip(window * gain // 100, 0, 255)


def enlarge(ink: NDArray[np.int64], height: int, width: int) -> NDArray[np.int64]:
    """Bilinear enlargement of (n, n) ink from 0 to 16, in whole numbers: (height, width) from 0 to 255."""
    n = len(ink)

    def weights(length: int) -> NDArray[np.int64]:
        # Pixel i lies at (i + 1/2) * n / length - 1/2 of the input, a whole number in units of 1 / (2 * length).
        unit = 2 * length
        position = np.clip((2 * np.arange(length) + 1) * n - length, 0, (n - 1) * unit)
        left, fraction = position // unit, position % unit
        rows = np.zeros((length, n + 1), np.int64)
        rows[np.arange(length), left] = unit - fraction
        rows[np.arange(length), left + 1] = fraction
        return rows[:, :n]

    return weights(height) @ ink @ weights(width).T * 255 // (16 * 4 * height * width)


def luminance(colours: NDArray[np.int64]) -> int:
    """Mean luminance of (..., 3) colours, from 0 to 255."""
    weighted = colours @ np.array([299, 587, 114])
    return int(weighted.sum()) // (1000 * weighted.size)


def paste(
    random_int: RandomIntegers, image: NDArray[np.int64], ink: NDArray[np.int64], top: int, left: int
) -> NDArray[np.bool_] | None:
    """Blend a digit into an image, in place and in a random light colour.

    Args:
        image: (H, W, 3) from 0 to 255.
        ink: (h, w) from 0 to 255.
        top, left: Where the ink's corner goes.

    Returns:
        The pixels (H, W) that the digit now owns, or None if the colour would not have stood out and nothing was done.
    """
    height, width = ink.shape
    patch = image[top : top + height, left : left + width]
    colour = np.array([random_int(96, 256) for _ in range(3)])
    if luminance(colour) - luminance(patch) < MIN_CONTRAST:
        return None
    opacity = np.clip((ink - 80) * 3, 0, 255)  # steeper than the enlarged ink: a crisp but soft edge
    patch += (colour - patch) * opacity[..., None] // 255
    mask = np.zeros(image.shape[:2], bool)
    mask[top : top + height, left : left + width] = opacity >= 128
    return mask


def make_image(
    split: str, index: int, size: int, seed: int = SEED
) -> tuple[NDArray[np.uint8], list[tuple[int, NDArray[np.bool_]]]]:
    """One image and its digits.

    Returns:
        The image (size, size, 3) and, per digit, its value and mask (size, size). Masks do not overlap.
    """
    random_int = RandomIntegers(seed, list(PHOTOS).index(split), index)
    inks, values = load_digits(split)
    image = background(random_int, split, size)
    taken = np.zeros((size, size), bool)
    digits = []
    for _ in range(random_int(14, 31)):  # tries: a digit in another's place, or on too light a background, is left out
        height = random_int(size * 32 // 160, size * 65 // 160)
        width = height * random_int(80, 121) // 100
        chosen = random_int(0, len(inks))
        top, left = random_int(0, size - height + 1), random_int(0, size - width + 1)
        ink = enlarge(inks[chosen], height, width)
        place = taken[top : top + height, left : left + width]
        if not place[ink > 0].any() and (mask := paste(random_int, image, ink, top, left)) is not None:
            place |= ink > 0
            digits.append((int(values[chosen]), mask))
    return image.astype(np.uint8), digits


def _annotation(identity: int, image_id: int, value: int, mask: NDArray[np.bool_]) -> dict:
    """The COCO instance of one mask."""
    from pycocotools import mask as run_lengths

    code = run_lengths.encode(np.asfortranarray(mask, np.uint8))
    return dict(
        id=identity,
        image_id=image_id,
        category_id=1 + value,
        bbox=run_lengths.toBbox(code).tolist(),
        area=int(mask.sum()),
        segmentation=dict(size=code['size'], counts=code['counts'].decode()),
        iscrowd=0,
    )


def _write_split(root: Path, split: str, count: int, size: int, seed: int) -> None:
    from PIL import Image

    for folder in ('images', 'masks'):
        (root / folder / split).mkdir(parents=True)
    images: list[dict] = []
    annotations: list[dict] = []
    for index in range(count):
        pixels, digits = make_image(split, index, size, seed)
        labels = np.zeros((size, size), np.uint8)
        for value, mask in digits:
            labels[mask] = 1 + value
            annotations.append(_annotation(len(annotations) + 1, index, value, mask))
        name = f'{index:05d}.png'
        Image.fromarray(pixels).save(root / 'images' / split / name, compress_level=1)
        Image.fromarray(labels).save(root / 'masks' / split / name)
        images.append(dict(id=index, file_name=name, height=size, width=size))
    categories = [dict(id=1 + value, name=name) for value, name in enumerate(CLASSES)]
    (root / 'annotations').mkdir(exist_ok=True)
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'annotations' / f'{split}.json').write_text(json.dumps(content))


def _read_stamp(root: Path) -> dict[str, int] | None:
    """The arguments with which the dataset in a folder was made; ``None`` if it is none of ours."""
    try:
        found = json.loads((root / STAMP).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and 'version' in found else None


def generate(root: str | Path, train: int = 1500, val: int = 100, size: int = 160, seed: int = SEED) -> bool:
    """Write the dataset below `root`, unless the same one is there already.

    Args:
        root: Output folder. Its former contents are replaced when they are of another dataset made here.
        train, val: Number of images of each split, at least 1.
        size: Height and width of every image in pixels, 64 to 300 (the smallest photograph).
        seed: Non-negative integer.

    Returns:
        Whether anything was written.

    Raises:
        ValueError: An argument is out of its range.
        FileExistsError: `root` holds something that this function did not write.
    """
    if min(train, val) < 1:
        raise ValueError(f'train and val must be at least 1, got train={train}, val={val}')
    if not 64 <= size <= 300:
        raise ValueError(f'size must be from 64 to 300, got {size}')
    if seed < 0:
        raise ValueError(f'seed must be at least 0, got {seed}')
    root = Path(root).resolve()
    wanted = dict(version=1, train=train, val=val, size=size, seed=seed)
    found = _read_stamp(root)
    if found == wanted:
        return False
    if root.exists() and {path.name for path in root.iterdir()} - (ENTRIES if found else set()):
        raise FileExistsError(
            f'{root} is not empty and holds files that this program did not write: name another folder'
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    # The folder gets its name when it is whole: an interrupted run leaves nothing half-done.
    with TemporaryDirectory(dir=root.parent, prefix=f'.{root.name}.') as draft:
        partial = Path(draft, 'digits')
        for split, count in (('train', train), ('val', val)):
            _write_split(partial, split, count, size, seed)
        (partial / STAMP).write_text(json.dumps(wanted))
        if found:
            shutil.rmtree(root)
        partial.rename(root)
    return True


class Parser(argparse.ArgumentParser):
    """argparse's parser, with one line for a mistake and exit code 1, as in our other programs."""

    def error(self, message: str) -> NoReturn:
        """Ends the program. Called by argparse."""
        sys.exit(f'error: {message}; --help explains the arguments')


def main() -> None:
    parser = Parser(description='Generate the digits dataset.')
    parser.add_argument('root', help='output folder')
    parser.add_argument('--train', type=int, default=1500, help='training images (default %(default)s)')
    parser.add_argument('--val', type=int, default=100, help='validation images (default %(default)s)')
    parser.add_argument('--size', type=int, default=160, help='height and width in pixels (default %(default)s)')
    parser.add_argument('--seed', type=int, default=SEED)
    args = parser.parse_args()
    try:
        written = generate(**vars(args))
    except (ValueError, OSError) as problem:
        sys.exit(f'error: {problem}')
    print(f'{args.root} {"written" if written else "is there already"}')


if __name__ == '__main__':
    main()
