"""The demo's two pictures: how training went, and predictions beside the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')  # before pyplot, which looks for a screen

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as run_lengths

COLOURS = hsv_to_rgb([(digit / 10, 0.75, 1.0) for digit in range(10)])
MIN_SCORE = 0.5


def read_scalars(work_dir: Path) -> list[dict[str, Any]]:
    """What the newest run in a work folder logged, one dict per line."""
    newest = max(work_dir.glob('*/vis_data/scalars.json'))  # the folders are named by their time
    return [json.loads(line) for line in newest.read_text().splitlines()]


def plot_curve(axes: Axes, title: str, scalars: list[dict[str, Any]], metrics: dict[str, tuple[str, float]]) -> None:
    """Training loss, and the metrics {key: (label, unit)} measured on the way."""
    steps, losses = zip(*((entry['step'], entry['loss']) for entry in scalars if 'loss' in entry), strict=True)
    axes.plot(steps, losses, color='0.6', label='training loss')
    axes.set(title=title, xlabel='iteration', ylabel='loss', ylim=(0, max(losses) * 1.05))
    right = axes.twinx()
    for key, (label, unit) in metrics.items():
        points = [(entry['step'], entry[key] / unit) for entry in scalars if key in entry]
        if not points:  # mmdet logs no metric while a detector finds nothing
            continue
        right.plot(*zip(*points, strict=True), marker='o', label=f'{label} {points[-1][1]:.3f}')
    right.set(ylabel='validation', ylim=(0, 1))
    handles = [*axes.get_lines(), *right.get_lines()]
    axes.legend(handles, [str(handle.get_label()) for handle in handles], loc='lower left')


def draw_curves(detector: Path, segmentor: Path, out: Path) -> None:
    """Write the plot of both trainings, read from their work folders, as a PNG file."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout='constrained')
    boxes = {'coco/bbox_mAP': ('box AP', 1), 'coco/segm_mAP': ('mask AP', 1)}
    plot_curve(left, 'Mask R-CNN from scratch', read_scalars(detector), boxes)
    plot_curve(right, "UperNet on the detector's backbone", read_scalars(segmentor), {'mIoU': ('mIoU', 100)})
    figure.savefig(out, dpi=100)
    plt.close(figure)


def paint(pixels: NDArray[np.uint8], masks: list[tuple[int, NDArray[np.bool_]]]) -> NDArray[np.uint8]:
    """The image (H, W, 3) dark and grey, with each (digit, mask) in the digit's colour."""
    painted = np.repeat(pixels.mean(axis=2, keepdims=True) * 0.5, 3, axis=2)
    for digit, mask in masks:
        painted[mask] = 255 * COLOURS[digit]
    return painted.astype(np.uint8)


def draw_instances(axes: Axes, pixels: NDArray[np.uint8], instances: list[tuple[int, dict, list[float]]]) -> None:
    """Draw every (digit, mask as run lengths, box as x, y, width, height)."""
    axes.imshow(paint(pixels, [(digit, run_lengths.decode(code).astype(bool)) for digit, code, _ in instances]))
    for digit, _, (left, top, width, height) in instances:
        frame = plt.Rectangle((left - 0.5, top - 0.5), width, height, fill=False, color=COLOURS[digit], linewidth=1.5)
        axes.add_patch(frame)
        label = axes.text(left, max(top, 14), str(digit), fontsize=9, fontweight='bold', verticalalignment='bottom')
        label.set_bbox(dict(facecolor=COLOURS[digit], edgecolor='none', pad=1))


def true_instances(content: dict[str, Any], image_id: int) -> list[tuple[int, dict, list[float]]]:
    """The truth of one image, from a COCO file of tools/demo/digits.py."""
    found = [entry for entry in content['annotations'] if entry['image_id'] == image_id]
    return [(entry['category_id'] - 1, entry['segmentation'], entry['bbox']) for entry in found]


def predicted_instances(prefix: Path, image_id: int) -> list[tuple[int, dict, list[float]]]:
    """What a detector is sure enough of in one image, from the two files that mmdet's CocoMetric writes."""
    boxes, masks = (json.loads(Path(f'{prefix}.{kind}.json').read_text()) for kind in ('bbox', 'segm'))
    return [
        (box['category_id'] - 1, mask['segmentation'], box['bbox'])
        for box, mask in zip(boxes, masks, strict=True)
        if box['image_id'] == image_id and box['score'] >= MIN_SCORE
    ]


def draw_sheet(data: Path, detector: Path, segmentor: Path, out: Path, count: int = 8) -> None:
    """Write the first `count` validation images, their truth and both models' predictions as a PNG file.

    Args:
        data: Root of the dataset.
        detector: Predictions, the ``outfile_prefix`` of mmdet's CocoMetric.
        segmentor: Predictions, the ``output_dir`` of mmseg's IoUMetric, with a label image for every image.
        out: PNG file.
    """
    content = json.loads((data / 'annotations' / 'val.json').read_text())
    images = content['images'][:count]
    figure, grid = plt.subplots(4, len(images), figsize=(2 * len(images), 8.4), layout='constrained', squeeze=False)
    for row, title in zip(grid, ('image', 'truth', 'Mask R-CNN', 'UperNet'), strict=True):
        row[0].set_ylabel(title, fontsize=14)
    for column, image in zip(grid.T, images, strict=True):
        pixels = np.asarray(Image.open(data / 'images' / 'val' / image['file_name']))
        labels = np.asarray(Image.open(segmentor / image['file_name']))
        column[0].imshow(pixels)
        draw_instances(column[1], pixels, true_instances(content, image['id']))
        draw_instances(column[2], pixels, predicted_instances(detector, image['id']))
        column[3].imshow(paint(pixels, [(digit, labels == 1 + digit) for digit in range(10)]))
        for axes in column:
            axes.set(xticks=[], yticks=[])
    patches = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS]
    figure.legend(patches, list('0123456789'), ncol=10, loc='outside lower center', frameon=False, fontsize=12)
    figure.savefig(out, dpi=100)
    plt.close(figure)
