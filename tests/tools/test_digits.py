"""The demo's data: the same everywhere, fair, and what its annotations say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from tools.demo import digits

TRAIN, VAL, SIZE = 4, 3, 96


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'digits'
    assert digits.generate(root, TRAIN, VAL, SIZE)
    return root


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def digest(*arrays: np.ndarray) -> str:
    state = hashlib.sha256()
    for array in arrays:
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()[:16]


@pytest.mark.parametrize(
    ('split', 'index', 'expected'),
    [
        ('train', 0, 'd16f261b81e708d8'),
        ('train', 1499, '2de53b96ed6914ad'),
        ('val', 0, 'b7cb8404f61c8bab'),
        ('val', 99, '270a3e5ad6435e27'),
    ],
)
def test_images_are_the_same_on_every_machine(split: str, index: int, expected: str) -> None:
    image, found = digits.make_image(split, index, 160)
    assert digest(image, np.array([value for value, _ in found], np.uint8), *(mask for _, mask in found)) == expected


def test_photographs_are_the_same_on_every_machine() -> None:
    """Some are JPEG files; decoders could differ."""
    assert (
        digest(*(digits.load_photo(name) for names in digits.PHOTOS.values() for name in names)) == 'fef000fd329471e6'
    )


def test_another_seed_gives_other_images() -> None:
    assert digest(digits.make_image('val', 0, 160, seed=1)[0]) != digest(digits.make_image('val', 0, 160)[0])


def test_splits_share_neither_photographs_nor_handwriting() -> None:
    photos = {split: {digits.load_photo(name).tobytes() for name in names} for split, names in digits.PHOTOS.items()}
    assert photos['train'].isdisjoint(photos['val'])
    assert [len(photos[split]) for split in ('train', 'val')] == [10, 5]
    inks = {split: {ink.tobytes() for ink in digits.load_digits(split)[0]} for split in digits.PHOTOS}
    assert inks['train'].isdisjoint(inks['val'])
    assert all(set(digits.load_digits(split)[1]) == set(range(10)) for split in digits.PHOTOS)


def test_enlarge_against_floating_point() -> None:
    """Whole numbers on the way give the bilinear interpolation with pixel centres at (i + 1/2), rounded down."""
    ink = digits.load_digits('val')[0][3]
    height, width, n = 37, 52, len(ink)

    def weights(length: int) -> np.ndarray:
        position = np.clip((np.arange(length) + 0.5) * n / length - 0.5, 0, n - 1)
        return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(n)))

    expected = weights(height) @ ink @ weights(width).T * 255 / 16
    found = digits.enlarge(ink, height, width)
    assert found.shape == (height, width)
    assert found.max() > 200
    assert np.all(found <= expected + 1e-9) and np.all(found > expected - 1 - 1e-9)


def test_files_agree_with_each_other(root: Path) -> None:
    for split, count in (('train', TRAIN), ('val', VAL)):
        coco = COCO(root / 'annotations' / f'{split}.json')
        assert [category['name'] for category in coco.loadCats(coco.getCatIds())] == list('0123456789')
        assert len(coco.getImgIds()) == count
        for image in coco.loadImgs(coco.getImgIds()):
            assert pixels(root / 'images' / split / image['file_name']).shape == (SIZE, SIZE, 3)
            labels = np.zeros((SIZE, SIZE), np.uint8)
            for annotation in coco.loadAnns(coco.getAnnIds(image['id'])):
                mask = coco.annToMask(annotation).astype(bool)
                rows, columns = mask.nonzero()
                left, top, width, height = annotation['bbox']
                assert (left, top) == (columns.min(), rows.min())
                assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
                assert annotation['area'] == mask.sum() > 0
                assert not labels[mask].any()  # digits do not overlap
                labels[mask] = annotation['category_id']
            assert labels.any()
            np.testing.assert_array_equal(pixels(root / 'masks' / split / image['file_name']), labels)


def test_a_small_data_set_is_the_beginning_of_a_large_one(root: Path, tmp_path: Path) -> None:
    digits.generate(tmp_path / 'small', 2, 1, SIZE)
    for path in sorted((tmp_path / 'small').rglob('*.png')):
        np.testing.assert_array_equal(pixels(path), pixels(root / path.relative_to(tmp_path / 'small')))


def test_generate_keeps_what_is_there_and_replaces_what_differs(root: Path) -> None:
    before = (root / 'images/val/00000.png').stat().st_mtime_ns
    assert not digits.generate(root, TRAIN, VAL, SIZE)
    assert (root / 'images/val/00000.png').stat().st_mtime_ns == before
    assert digits.generate(root, TRAIN, VAL, SIZE, seed=7)
    assert digits.generate(root, TRAIN, VAL, SIZE)
    assert json.loads((root / 'digits.json').read_text())['seed'] == digits.SEED


def test_generate_leaves_other_peoples_folders_alone(tmp_path: Path) -> None:
    (tmp_path / 'mine.txt').touch()
    with pytest.raises(FileExistsError, match='not empty'):
        digits.generate(tmp_path, 1, 1)
    assert [path.name for path in tmp_path.iterdir()] == ['mine.txt']


@pytest.mark.parametrize(('train', 'val', 'size'), [(0, 1, 96), (1, 0, 96), (1, 1, 63), (1, 1, 301)])
def test_generate_refuses_what_it_cannot_make(tmp_path: Path, train: int, val: int, size: int) -> None:
    with pytest.raises(ValueError, match='must be'):
        digits.generate(tmp_path / 'digits', train, val, size)
    assert not (tmp_path / 'digits').exists()
