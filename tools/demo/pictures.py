"""The demo's two pictures: how training went, and predictions beside the truth."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')  # before pyplot, which looks for a screen

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO

COLOURS = plt.get_cmap('tab10').colors  # one per digit
MIN_SCORE = 0.5
SCALE = 4  # boxes and letters stay sharp on the enlarged image


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
        right.plot(*zip(*points, strict=True), marker='o', label=f'{label} {points[-1][1]:.3f}')
    right.set(ylabel='validation', ylim=(0, 1))
    handles = [*axes.get_lines(), *right.get_lines()]
    axes.legend(handles, [str(handle.get_label()) for handle in handles], loc='center right')


def draw_curves(detector: Path, segmentor: Path, out: Path) -> None:
    """Write the plot of both trainings, read from their work folders, as a PNG file."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout='constrained')
    boxes = {'coco/bbox_mAP': ('box AP', 1), 'coco/segm_mAP': ('mask AP', 1)}
    plot_curve(left, 'Mask R-CNN from scratch', read_scalars(detector), boxes)
    plot_curve(right, "UperNet on the detector's backbone", read_scalars(segmentor), {'mIoU': ('mIoU', 100)})
    figure.savefig(out, dpi=100)
    plt.close(figure)


def show_image(axes: Axes, pixels: NDArray[np.uint8]) -> None:
    height, width = pixels.shape[:2]
    axes.imshow(pixels, extent=(0, width, height, 0), interpolation='nearest')
    axes.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))


def tint(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], digit: int) -> NDArray[np.uint8]:
    colour = np.array(COLOURS[digit]) * 255
    return np.where(mask[..., None], 0.35 * pixels + 0.65 * colour, pixels).astype(np.uint8)


def draw_instances(axes: Axes, pixels: NDArray[np.uint8], instances: list[tuple[int, dict, list[float], str]]) -> None:
    """Draw (digit, mask as run lengths, box xywh, text) each."""
    faded = (pixels * 0.6 + 100).astype(np.uint8)
    for digit, code, _, _ in instances:
        faded = tint(faded, run_lengths.decode(code).astype(bool), digit)
    show_image(axes, faded)
    for digit, _, (left, top, width, height), text in instances:
        axes.add_patch(plt.Rectangle((left, top), width, height, fill=False, color=COLOURS[digit], linewidth=1.5))
        axes.text(
            left,
            max(top, 9),
            text,
            color='white',
            fontsize=9,
            fontweight='bold',
            verticalalignment='bottom',
            bbox=dict(facecolor=COLOURS[digit], edgecolor='none', pad=0.8),
        )


def draw_labels(axes: Axes, pixels: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    """Draw a label map (H, W): 0 background, 1 + digit."""
    faded = (pixels * 0.6 + 100).astype(np.uint8)
    for label in np.unique(labels[labels > 0]):
        faded = tint(faded, labels == label, label - 1)
    show_image(axes, faded)


def detections(prediction: dict[str, Any]) -> list[tuple[int, dict, list[float], str]]:
    found = prediction['pred_instances']
    boxes = found['bboxes'].numpy()
    return [
        (int(label), code, [*box[:2], *(box[2:] - box[:2])], f'{label} {100 * score:.0f}%')
        for box, score, label, code in zip(boxes, found['scores'], found['labels'], found['masks'], strict=True)
        if score >= MIN_SCORE
    ]


def draw_sheet(data: Path, detector: Path, segmentor: Path, out: Path, count: int = 8) -> None:
    """Write a sheet of the first `count` validation images as a PNG file: truth and prediction of both models.

    Args:
        data: Root of the data set.
        detector, segmentor: Files of predictions, from the option --out of tools/test.py.
    """
    coco = COCO(data / 'annotations' / 'val.json')
    boxes = {prediction['img_id']: prediction for prediction in pickle.loads(detector.read_bytes())}
    maps = {Path(prediction['img_path']).name: prediction for prediction in pickle.loads(segmentor.read_bytes())}
    images = coco.loadImgs(sorted(coco.getImgIds())[:count])
    figure, grid = plt.subplots(4, len(images), figsize=(2.1 * len(images), 8.6), layout='constrained', squeeze=False)
    for row, title in zip(grid, ('truth', 'Mask R-CNN', 'truth', 'UperNet'), strict=True):
        row[0].set_ylabel(title, fontsize=14)
    for column, image in zip(grid.T, images, strict=True):
        pixels = np.asarray(Image.open(data / 'images' / 'val' / image['file_name']))
        truth = [
            (a['category_id'] - 1, coco.annToRLE(a), a['bbox'], str(a['category_id'] - 1))
            for a in coco.loadAnns(coco.getAnnIds(image['id']))
        ]
        draw_instances(column[0], pixels, truth)
        draw_instances(column[1], pixels, detections(boxes[image['id']]))
        draw_labels(column[2], pixels, np.asarray(Image.open(data / 'masks' / 'val' / image['file_name'])))
        draw_labels(column[3], pixels, maps[image['file_name']]['pred_sem_seg'].numpy())
    patches = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS]
    figure.legend(patches, list('0123456789'), ncol=10, loc='outside lower center', frameon=False)
    figure.savefig(out, dpi=100)
    plt.close(figure)
