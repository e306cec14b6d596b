"""Times the data check on a JSON file of COCO's size: 118,000 images and 860,000 objects with polygons.

    python benchmarks/data_check.py
    python benchmarks/data_check.py --val

The file is made once and kept in the system's folder for temporary files. Its images are links to two JPEG files. Next
to the seconds stand those that the processor worked, which other programs change less. Memory is the peak of the whole
process.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image

import mmdet_custom  # noqa: F401 - registers the check
from mmcv_custom.datasets import check_datasets

IMAGES, OBJECTS_PER_IMAGE, POINTS = 118_000, 860 / 118, 25
CLASSES = tuple(f'class {i}' for i in range(80))
SIZES = ((640, 480), (480, 640))


def generate(images: int) -> Path:
    """The folder of a dataset, made unless it is there already."""
    root = Path(tempfile.gettempdir(), f'data-check-{images}')
    if (root / 'instances.json').exists():
        return root
    (root / 'images').mkdir(parents=True, exist_ok=True)
    for i, size in enumerate(SIZES):
        Image.new('RGB', size, 'grey').save(root / f'{i}.jpg')
    random = np.random.default_rng(0)
    with open(root / 'instances.part', 'w') as file:
        file.write('{"info": {"description": "made by benchmarks/data_check.py"}, "images": [')
        for i in range(images):
            width, height = SIZES[i % 2]
            name = f'{i:012d}.jpg'
            link = root / 'images' / name
            if not link.is_symlink():
                link.symlink_to(root / f'{i % 2}.jpg')
            image = dict(license=1, file_name=name, coco_url=f'http://images.example/{name}', height=height)
            image |= dict(width=width, date_captured='2013-11-14 11:18:45', id=3 * i)
            file.write((', ' if i else '') + json.dumps(image))
        file.write('], "annotations": [')
        for i, image_id in enumerate(np.sort(random.integers(0, images, round(images * OBJECTS_PER_IMAGE)))):
            annotation = _annotation(random, int(image_id), i + 1)
            file.write((', ' if i else '') + json.dumps(annotation))
        categories = [dict(supercategory='thing', id=i + 1, name=name) for i, name in enumerate(CLASSES)]
        file.write(f'], "categories": {json.dumps(categories)}}}')
    Path(file.name).rename(root / 'instances.json')
    return root


def _annotation(random: np.random.Generator, image: int, identity: int) -> dict:
    """An object with the outline of a star of about ``POINTS`` points."""
    width, height = SIZES[image % 2]
    angles = np.sort(random.random(3 + random.poisson(POINTS - 3))) * 2 * np.pi
    radius = random.uniform(2, min(width, height) / 4)
    lengths = radius * random.uniform(0.5, 1, len(angles))
    centre = random.uniform(radius, (width - radius, height - radius))
    points = np.round(centre + lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1), 2)
    low, high = points.min(0), points.max(0)
    return dict(
        segmentation=[points.ravel().tolist()],
        area=round(float(np.prod(high - low)) * 0.7, 4),
        iscrowd=0,
        image_id=3 * image,
        bbox=np.round(np.concatenate([low, high - low]), 2).tolist(),
        category_id=int(random.integers(len(CLASSES))) + 1,
        id=identity,
    )


def config(root: Path) -> Config:
    """A config that trains on the file with boxes and masks, and evaluates on it."""
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
    dataset = dict(
        type='CocoDataset',
        data_root=f'{root}/',
        ann_file='instances.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=CLASSES),
        pipeline=[*load, dict(type='PackDetInputs')],
    )
    return Config(
        dict(
            default_scope='mmdet',
            train_dataloader=dict(dataset=dataset),
            val_dataloader=dict(dataset=dict(dataset, test_mode=True)),
            val_evaluator=dict(type='CocoMetric', ann_file=f'{root}/instances.json', metric=['bbox', 'segm']),
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=IMAGES, help='number of images (default %(default)s)')
    parser.add_argument('--full', action='store_true', help='look at every image')
    parser.add_argument('--val', action='store_true', help='check the same file as data of val too, with its metric')
    args = parser.parse_args()
    cfg = config(generate(args.images))
    start, start_of_work = time.perf_counter(), time.process_time()
    report = check_datasets(cfg, ('train', 'val') if args.val else ('train',), args.full)
    seconds, work = time.perf_counter() - start, time.process_time() - start_of_work
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print('\n'.join(report.error_lines()) or 'no errors')
    print(report.summary())
    print(f'{seconds:.1f} s (processor: {work:.1f} s), peak memory of the process {memory:.2f} GiB')


if __name__ == '__main__':
    main()
