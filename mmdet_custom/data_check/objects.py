"""Objects of a COCO file, next to what a dataset made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from mmcv_custom.datasets.coco import CocoFile
from mmcv_custom.datasets.coco_masks import mask_faults

from .oracle import Truth, to_rle


def match(file: CocoFile, infos: Sequence[Mapping[str, Any]]) -> tuple[NDArray[np.int64], int]:
    """Finds the objects of a file in a dataset: both have them in the same order, by image.

    Args:
        file: N objects.
        infos: The dataset's list of images.

    Returns:
        (N,) the label of each object that is used, -1 for the others; and the number of the dataset's objects that are
        not in the file.
    """
    labels, unknown = np.full(len(file), -1, np.int64), 0
    order = np.argsort(file.image_rows, kind='stable')
    starts = np.searchsorted(file.image_rows[order], np.arange(len(file.images) + 1))
    rows = {image.get('id'): (starts[i], starts[i + 1]) for i, image in enumerate(file.images)}
    corners = file.boxes.copy()
    corners[:, 2:] += corners[:, :2]
    corners = corners[order].tolist()
    for info in infos:
        place, end = rows.get(info['img_id'], (0, 0))
        for instance in info['instances']:
            box = list(instance['bbox'])
            found = next((i for i in range(place, end) if corners[i] == box), None)
            if found is None:
                unknown += 1
                continue
            place = found + 1
            if not instance['ignore_flag']:
                labels[order[found]] = instance['bbox_label']
    return labels, unknown


def truth_of(file: CocoFile, ids: Sequence[Any], shapes: Mapping[Any, tuple[int, int]]) -> Truth:
    """Some images of a file with their objects.

    Args:
        file: The file.
        ids: Ids of the images.
        shapes: Height and width of images as they are loaded; others are as the file says.
    """
    wanted = set(ids)
    images = [image for image in file.images if image['id'] in wanted]
    in_file = {image['id']: (image['height'], image['width']) for image in images}
    return Truth(images, file.annotations_of(wanted), file.categories, {**in_file, **shapes})


def mask_box(annotation: Mapping[str, Any]) -> list[float] | None:
    """The box x, y, width, height around the mask of an annotation; ``None`` without a mask or for a faulty one."""
    segmentation = annotation.get('segmentation')
    if segmentation is None or any(mask_faults([segmentation])):
        return None
    if isinstance(segmentation, list):
        xy = np.concatenate([np.reshape(part, (-1, 2)) for part in segmentation])
        return [*xy.min(0), *(xy.max(0) - xy.min(0))]
    return mask_utils.toBbox(to_rle(annotation, segmentation['size'])).tolist()


def median_iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Median IoU of N pairs of boxes (N, 4) x, y, width, height."""
    low = np.maximum(first[:, :2], second[:, :2])
    high = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    total = first[:, 2:].prod(1) + np.clip(second[:, 2:], 0, None).prod(1) - shared
    return float(np.median(shared / np.maximum(total, 1e-9)))
