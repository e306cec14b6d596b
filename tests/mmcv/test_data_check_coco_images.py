"""The images of COCO files: files, sizes and what a loader makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import pytest
from PIL import Image

from mmcv_custom.datasets.coco_structure import check_structure
from mmcv_custom.datasets.image_folder import ImageFolder
from mmcv_custom.datasets.images import read_header
from mmcv_custom.datasets.report import Report
from tests.mmcv.coco_files import (
    CLASSES,
    HEIGHT,
    WIDTH,
    check,
    plain,
    source_of,
    write,
)


def test_names_in_another_encoding_of_accents(tmp_path: Path) -> None:
    data = plain()
    path = write(tmp_path, data)
    (tmp_path / 'images' / '0.png').rename(tmp_path / 'images' / 'e\u0301.png')
    data['images'][0]['file_name'] = '\u00e9.png'
    Path(path).write_text(json.dumps(data))
    report = Report()
    check_structure(path, source_of(tmp_path), report, True, CLASSES)
    assert 'its accents are encoded otherwise' in next(report.error_lines())


def test_no_name_is_guessed_among_several(tmp_path: Path) -> None:
    write(tmp_path, plain())
    for name in ('a.jpg', 'a.bmp'):
        (tmp_path / 'images' / name).touch()
    folder = ImageFolder(str(tmp_path / 'images'))
    assert not folder.has('a\x00/b.png')
    assert folder.has('./1.png') and folder.has('../images/1.png') and not folder.has('2.jpg')
    assert folder.surplus(['./0.png', '1.png', '2.png', '../images/3.png']) == 2
    assert ImageFolder(str(tmp_path / 'images')).find('a.png') is None
    assert ImageFolder(str(tmp_path / 'images')).find('1.jpg') == ('1.png', 'it has another suffix')


TURNED = Image.Exif()
TURNED[0x0112] = 6


@pytest.mark.parametrize(
    ('flag', 'said', 'kind'),
    [
        ('color', (48, 64), None),
        ('tifffile', (64, 48), None),
        ('color', (64, 48), 'EXIF orientation'),
        ('color_ignore_orientation', (64, 48), None),
        ('unchanged', (48, 64), 'EXIF orientation'),
        ('color', (32, 24), 'image of another size'),
    ],
)
def test_sizes_are_those_of_the_loaded_image(
    tmp_path: Path, flag: str, said: tuple[int, int], kind: str | None
) -> None:
    data = plain()
    path = write(tmp_path, data)
    Image.new('RGB', (WIDTH, HEIGHT)).save(tmp_path / 'images' / '0.jpg', exif=TURNED)
    data['images'][0].update(file_name='0.jpg', width=said[0], height=said[1])
    (tmp_path / 'images' / '0.png').unlink()
    key = 'imdecode_backend' if flag == 'tifffile' else 'color_type'
    pipeline = [dict(type='mmdet.LoadImageFromFile', **{key: flag})]
    report = Report()
    Path(path).write_text(json.dumps(data))
    check_structure(path, source_of(tmp_path, pipeline=pipeline), report, False, CLASSES)
    assert report.kinds() == ({kind} if kind else set())


@pytest.mark.parametrize('kind', ['JPEG', 'MPO', 'PNG', 'TIFF', 'WEBP', 'AVIF', 'BMP', 'PPM'])
@pytest.mark.parametrize('orientation', [1, 3, 6])
def test_formats_are_turned_as_mmcv_turns_them(tmp_path: Path, kind: str, orientation: int) -> None:
    path, exif = str(tmp_path / f'image.{kind}'), Image.Exif()
    exif[0x0112] = orientation
    options: dict = {} if kind in ('BMP', 'PPM') else dict(exif=exif)  # these have no EXIF data
    try:
        Image.new('RGB', (WIDTH, HEIGHT)).save(path, kind, **options)
        height, width = mmcv.imread(path).shape[:2]
    except (KeyError, OSError, AttributeError):
        pytest.skip(f'Pillow or OpenCV was built without {kind}')
    header = read_header(path)
    assert header.upright == (width, height)
    as_stored = mmcv.imread(path, 'unchanged').shape[:2]
    assert (header.height, header.width) == as_stored


def picture(mode: str, kind: str = 'png') -> Callable[[Path], None]:
    return lambda path: Image.new(mode, (WIDTH, HEIGHT)).save(path, kind)


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda path: path.write_bytes(b''), 'it is empty'),
        (lambda path: path.write_text('<html>'), 'it is no image'),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), 'cannot be read'),
        (picture('RGB', 'pcx'), 'is a PCX file, which OpenCV cannot read'),
        (lambda path: path.unlink(), 'there is no file'),
        (lambda path: (path.unlink(), path.mkdir()), 'it is a folder'),
    ],
)
def test_images_that_cannot_be_read(tmp_path: Path, make: Callable[[Path], Any], words: str) -> None:
    write(tmp_path, plain())
    path = tmp_path / 'images' / '2.png'
    make(path)
    report = Report()
    check_structure(str(tmp_path / 'train.json'), source_of(tmp_path), report, True, CLASSES)
    (line,) = report.error_lines()
    assert line.startswith('train: image file: ') and words in line and str(path) in line


@pytest.mark.parametrize(
    ('make', 'notes'),
    [
        (picture('L'), {'grey images': 1}),
        (picture('I;16'), {'images of more than 8 bits, read as 8 bits': 1}),
        (picture('RGBA'), {}),
        (picture('P'), {}),
        (
            lambda path: picture('RGB')(path.with_name('other.png')),
            {'images in the folder that the file does not name': 1},
        ),
    ],
)
def test_unusual_images_make_notes(tmp_path: Path, make: Callable[[Path], Any], notes: dict[str, int]) -> None:
    write(tmp_path, plain())
    make(tmp_path / 'images' / '2.png')
    report = Report()
    check_structure(str(tmp_path / 'train.json'), source_of(tmp_path), report, True, CLASSES)
    assert not report.failed
    assert report.notes['train'] == notes


@pytest.mark.parametrize('cfg', [dict(data_prefix={}), dict(data_prefix=dict(img='pictures'))])
def test_there_is_no_folder_of_images(tmp_path: Path, cfg: dict) -> None:
    assert check(tmp_path, plain(), **cfg).kinds() == {'image folder'}


def test_images_on_another_machine_are_not_looked_at(tmp_path: Path) -> None:
    report = check(tmp_path, plain(), backend_args=dict(backend='petrel'), data_prefix=dict(img='s3://bucket'))
    assert not report.failed
    assert report.unchecked == ['image files that are not on this machine']


LOAD: dict[str, Any] = dict(type='LoadImageFromFile')


@pytest.mark.parametrize('suffix', ['tif', 'png'])
@pytest.mark.parametrize(
    ('largest', 'load', 'black'),
    [
        (1020, LOAD, True),
        (65535, LOAD, False),
        (1020, dict(LOAD, color_type='unchanged'), False),
        (1020, dict(LOAD, imdecode_backend='pillow'), False),
        (9, LOAD, False),  # black as it is stored
        (1020, dict(type='LoadMyImages'), False),
    ],
)
def test_images_of_10_bits_become_black(
    tmp_path: Path, largest: int, load: dict[str, Any], black: bool, suffix: str
) -> None:
    data = plain()
    path = write(tmp_path, data)
    pixels = np.linspace(0, largest, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / 'images' / f'deep.{suffix}')
    data['images'][0]['file_name'] = f'deep.{suffix}'
    Path(path).write_text(json.dumps(data))
    report = Report()
    check_structure(path, source_of(tmp_path, pipeline=[load]), report, True, CLASSES)
    assert report.notes['train']['images of more than 8 bits, read as 8 bits'] == 1
    lines = list(report.error_lines())
    assert len(lines) == black
    assert not black or f'image 0 (deep.{suffix}): the values 0 to 1020 of' in lines[0]
    assert not black or 'are loaded as 0 to 3 of 255' in lines[0]


def test_images_of_any_size_have_a_header(tmp_path: Path) -> None:
    """Pillow's guard against huge images is off while a header is read, and only then."""
    path = tmp_path / 'huge.png'
    Image.new('1', (20_000, 10_000)).save(path)
    limit = Image.MAX_IMAGE_PIXELS
    assert limit and 2 * limit < 20_000 * 10_000
    assert read_header(str(path)).upright == (20_000, 10_000)
    assert limit == Image.MAX_IMAGE_PIXELS
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
