"""tools/new_config.py: folders of images and masks, their endings and the names of the classes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from mmcv_custom.new_config import read_segments
from tests.tools.helpers import IMAGES, MASK_RCNN, MASKS, NAMES, UPERNET, Write


def rename(folder: str, pattern: str) -> None:
    """Renames all files of both splits, by a pattern for their stem such as ``'city/{}_leftImg8bit.png'``."""
    for path in sorted(Path('data/digits', folder).rglob('*.png')):
        target = path.parent / pattern.format(path.stem)
        target.parent.mkdir(exist_ok=True)
        path.rename(target)


@pytest.mark.parametrize(
    ('images', 'masks', 'suffixes'),
    [
        ('{}.png', '{}.png', ('.png', '.png')),
        ('{}.bmp', '{}_mask.png', ('.bmp', '_mask.png')),
        ('city/{}_leftImg8bit.png', 'city/{}_gtFine_labelIds.png', ('_leftImg8bit.png', '_gtFine_labelIds.png')),
    ],
    ids=['same', 'mask', 'cityscapes'],
)
def test_endings_are_found(images: str, masks: str, suffixes: tuple[str, str], write: Write) -> None:
    rename('images', images)
    rename('masks', masks)
    cfg = write(UPERNET)
    init_default_scope('mmseg')
    for split, count in (('train', 8), ('val', 5)):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert (dataset.img_suffix, dataset.get('seg_map_suffix', '.png')) == suffixes
        built = DATASETS.build(dict(dataset, pipeline=[]))
        assert len(built) == count and all(Path(item['seg_map_path']).is_file() for item in built)


def test_images_of_both_splits_may_differ_in_their_endings(write: Write) -> None:
    for path in Path(IMAGES[1]).iterdir():
        path.rename(path.with_suffix('.bmp'))
    cfg = write(UPERNET)
    init_default_scope('mmseg')
    for split, count, suffix in (('train', 8, '.png'), ('val', 5, '.bmp')):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert dataset.img_suffix == suffix
        assert len(DATASETS.build(dict(dataset, pipeline=[]))) == count


def test_linked_folders_are_followed(write: Write) -> None:
    for folder in (*IMAGES, *MASKS):
        target = Path('elsewhere', folder).absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        Path(folder).rename(target)
        Path(folder).mkdir()
        Path(folder, 'city').symlink_to(target)
    cfg = write(UPERNET)
    init_default_scope('mmseg')
    assert len(DATASETS.build(dict(cfg.train_dataloader.dataset, pipeline=[]))) == 8


CITYSCAPES = ('--suffix', '_leftImg8bit.png', '_gtFine_labelIds.png')


def test_one_of_several_masks_is_chosen(write: Write) -> None:
    rename('images', '{}_leftImg8bit.png')
    for path in sorted(Path('data/digits/masks').rglob('*.png')):
        shutil.copy(path, path.with_name(f'{path.stem}_gtFine_color.png'))
        Image.fromarray(np.full((64, 64), 26001, np.uint16)).save(path.with_name(f'{path.stem}_gtFine_instanceIds.png'))
        path.rename(path.with_name(f'{path.stem}_gtFine_labelIds.png'))
    several = '_gtFine_color.png, _gtFine_instanceIds.png, _gtFine_labelIds.png; choose with --suffix _leftImg8bit.png'
    with pytest.raises(SystemExit, match=f'error: --train {MASKS[0]}: each image has several masks: {several}'):
        write(UPERNET)
    with pytest.raises(SystemExit, match='error: --suffix _gt.png: no file in .*masks/train ends so; there is 0'):
        write(UPERNET, *CITYSCAPES[:2], '_gt.png')
    dataset = write(UPERNET, *CITYSCAPES).val_dataloader.dataset
    assert (dataset.img_suffix, dataset.seg_map_suffix) == CITYSCAPES[1:]
    with pytest.raises(SystemExit, match='--suffix is for segmentors'):
        write(MASK_RCNN, *CITYSCAPES, '--out', 'other.py')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (b'\xef\xbb\xbf' + '\r\n'.join(NAMES).encode(), ''),
        ('\n'.join((*NAMES[:-1], ' nine')).encode(), "the name ' nine' begins or ends with a space"),
        ('\n'.join((*NAMES[:-1], 'nine\xa0')).encode(), r"the name 'nine\\xa0' begins or ends with a space"),
        (b'\xff\xfe', 'names.txt: it is no text in UTF-8'),
        ('\n'.join(map(str, range(256))).encode(), '256 names, expected at most 255'),
    ],
    ids=['mark', 'space', 'hard space', 'binary', 'too many'],
)
def test_files_of_names(text: bytes, message: str, write: Write) -> None:
    Path('names.txt').write_bytes(text)
    if message:
        with pytest.raises(SystemExit, match=message):
            write(UPERNET, '--classes', 'names.txt')
    else:
        assert write(UPERNET, '--classes', 'names.txt').train_dataloader.dataset.metainfo.classes == NAMES


def test_there_may_be_255_names(place: Path) -> None:
    pairs = {split: (IMAGES[index], MASKS[index]) for index, split in enumerate(('train', 'val'))}
    assert len(read_segments(pairs, [str(i) for i in range(255)]).classes) == 255
