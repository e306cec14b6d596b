"""The truth as a perfect prediction, through the metrics of COCO and LVIS."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from mmdet.evaluation import CocoMetric, LVISMetric
from mmengine.registry import METRICS
from pycocotools import mask as mask_utils

from mmcv_custom.datasets import class_of, silence

BEST = 0.9995  # metrics round to three digits
OF_LVIS = 300  # detections of an image that LVIS judges
OF_COCO = 100  # detections of a class in an image that COCO judges


@dataclass
class Truth:
    """Images of an annotation file with their objects, as the file describes them.

    Attributes:
        images: The entries of the images.
        annotations: The entries of their objects.
        categories: The entries of all categories.
        shapes: Height and width of each image as it is loaded, by its id.
    """

    images: Sequence[Mapping[str, Any]]
    annotations: Sequence[Mapping[str, Any]]
    categories: Sequence[Mapping[str, Any]]
    shapes: Mapping[Any, tuple[int, int]]

    def only(self, image_id: Any) -> Truth:
        """The same with a single image."""
        return Truth(
            [image for image in self.images if image['id'] == image_id],
            [annotation for annotation in self.annotations if annotation['image_id'] == image_id],
            self.categories,
            self.shapes,
        )


@dataclass
class Verdict:
    """What a metric says of the truth.

    Attributes:
        scores: Overall scores below the best value, by name, such as ``{'segm_mAP': 0.543}``.
        classes: Scores of classes below the best value, by name.
        limits: Objects that the metric itself cannot reward, by reason; they were left out.
    """

    scores: dict[str, float] = field(default_factory=dict)
    classes: dict[str, float] = field(default_factory=dict)
    limits: Counter[str] = field(default_factory=Counter)


def can_judge(metric: Mapping[str, Any]) -> bool:
    """Whether a metric of a config is one of those known here, and computes scores of boxes or masks."""
    built_class = class_of(METRICS, metric)
    known = built_class is not None and issubclass(built_class, CocoMetric | LVISMetric)
    return known and bool(_kinds(metric)) and not metric.get('format_only')


def judge(
    metric: Mapping[str, Any], meta: Mapping[str, Any], truth: Truth, predicted: Truth, labels: Mapping[str, int]
) -> Verdict:
    """What a metric says of a prediction that equals the truth.

    Args:
        metric: The metric's entry in the config.
        meta: The ``metainfo`` of the dataset that it judges.
        truth: What the metric's own annotation file holds.
        predicted: What the dataset's annotation file holds of the same images.
        labels: The label that training gives to each class.

    Returns:
        The scores that are not perfect.

    Raises:
        Exception: Whatever the metric raises on data that it cannot handle.
    """
    verdict = Verdict()
    kinds, is_lvis = _kinds(metric), issubclass(class_of(METRICS, metric) or object, LVISMetric)
    excluded = set(_beyond_limits(truth, kinds, is_lvis, verdict.limits))
    options = {key: value for key, value in metric.items() if key != 'outfile_prefix'}
    if options.get('metric_items'):  # one that does not exist would end the first evaluation
        options['metric_items'] = list(dict.fromkeys([*options['metric_items'], 'AP' if is_lvis else 'mAP']))
    with TemporaryDirectory() as folder, silence():
        file = Path(folder, 'truth.json')
        kept = [a for a in truth.annotations if a['id'] not in excluded]
        file.write_text(json.dumps({'images': truth.images, 'annotations': kept, 'categories': truth.categories}))
        # CocoMetric computes no scores of classes whose ids are strings.
        classwise = not any(isinstance(category['id'], str) for category in truth.categories)
        built = METRICS.build({**options, 'metric': kinds, 'classwise': classwise, 'ann_file': str(file)})
        built.dataset_meta = dict(meta)
        for sample in _predictions(predicted, labels, excluded, 'segm' in kinds, is_lvis):
            built.process({}, [sample])
        scores = built.compute_metrics(built.results)
    overall = [f'{kind}_{"AP" if is_lvis else "mAP"}' for kind in kinds]
    verdict.scores = {name: scores[name] for name in overall if 0 <= scores.get(name, -1) < BEST}
    names = {f'{category["name"]}_precision': str(category['name']) for category in truth.categories}
    verdict.classes = {
        names[key]: float(score) for key, score in scores.items() if key in names and 0 <= float(score) < BEST
    }
    return verdict


def _kinds(metric: Mapping[str, Any]) -> list[str]:
    asked = metric.get('metric', 'bbox')
    return [kind for kind in ([asked] if isinstance(asked, str) else asked) if kind in ('bbox', 'segm')]


def _beyond_limits(truth: Truth, kinds: Sequence[str], is_lvis: bool, limits: Counter[str]) -> Iterator[Any]:
    """Ids of the objects that no prediction could match, and counts them by reason."""
    sizes = {image['id']: (image['height'], image['width']) for image in truth.images}
    seen: Counter[Any] = Counter()
    for annotation in truth.annotations:
        if annotation.get('iscrowd'):
            continue
        image_id = annotation['image_id']
        place, limit = (image_id, OF_LVIS) if is_lvis else ((image_id, annotation['category_id']), OF_COCO)
        reason = None
        if not (annotation['bbox'][2] > 0 and annotation['bbox'][3] > 0):
            reason = 'boxes without area, which the metric cannot match'
        elif 'segm' in kinds and not mask_utils.area(to_rle(annotation, sizes[image_id])):
            reason = 'masks without a pixel, which the metric cannot match'
        elif seen[place] == limit:
            reason = (
                f'objects beyond the {limit} per {"image" if is_lvis else "class and image"} that the metric judges'
            )
        if reason:
            limits[reason] += 1
            yield annotation['id']
        else:
            seen[place] += 1


def to_rle(annotation: Mapping[str, Any], shape: tuple[int, int]) -> dict[str, Any]:
    """The mask of an annotation as run lengths; polygons are drawn on an image of ``shape``."""
    segmentation = annotation.get('segmentation')
    if isinstance(segmentation, list):
        return mask_utils.merge(mask_utils.frPyObjects(segmentation, *shape))
    if segmentation is not None and isinstance(segmentation['counts'], list):
        return mask_utils.frPyObjects(segmentation, *segmentation['size'])
    return dict(segmentation or {})


def _predictions(
    truth: Truth, labels: Mapping[str, int], excluded: set[Any], with_masks: bool, dense: bool
) -> Iterator[dict[str, Any]]:
    """The data samples that a perfect model would return, one per image.

    Masks are run lengths, or pixels if they are ``dense``, which LVISMetric needs.
    """
    names = {category['id']: str(category['name']) for category in truth.categories}
    objects: dict[Any, list[Mapping[str, Any]]] = {image['id']: [] for image in truth.images}
    for annotation in truth.annotations:
        is_judged = not annotation.get('iscrowd') and annotation['id'] not in excluded
        if is_judged and names.get(annotation['category_id']) in labels:
            objects[annotation['image_id']].append(annotation)
    for image_id, of_image in objects.items():
        height, width = truth.shapes[image_id]
        boxes = np.array([annotation['bbox'] for annotation in of_image], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances: dict[str, Any] = {
            'bboxes': torch.from_numpy(boxes),  # float32 would shift thin boxes
            'scores': torch.ones(len(of_image)),
            'labels': torch.tensor([labels[names[a['category_id']]] for a in of_image], dtype=torch.int64),
        }
        if with_masks:
            masks = [to_rle(annotation, (height, width)) for annotation in of_image]
            instances['masks'] = _pixels(masks, height, width) if dense else masks
        yield {'img_id': image_id, 'ori_shape': (height, width), 'pred_instances': instances}


def _pixels(masks: Sequence[Mapping[str, Any]], height: int, width: int) -> torch.Tensor:
    """(N, height, width) bool."""
    pixels = np.zeros((len(masks), height, width), bool)
    for place, mask in zip(pixels, masks, strict=True):
        place[:] = mask_utils.decode(mask)
    return torch.from_numpy(pixels)
