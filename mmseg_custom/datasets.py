"""Datasets of published results that mmseg lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.registry import DATASETS
from mmseg.datasets import ADE20KDataset, BaseSegDataset, CityscapesDataset, MapillaryDataset_v1

IGNORED = 255
# For each class of Cityscapes, in its order, the classes of Mapillary Vistas v1.2 that it is made of.
CITYSCAPES_FROM_MAPILLARY: dict[str, tuple[str, ...]] = {
    'road': ('Road', 'Lane Marking - General', 'Manhole'),
    'sidewalk': ('Curb', 'Sidewalk'),
    'building': ('Building',),
    'wall': ('Wall',),
    'fence': ('Fence',),
    'pole': ('Pole', 'Utility Pole'),
    'traffic light': ('Traffic Light',),
    'traffic sign': ('Traffic Sign (Front)',),
    'vegetation': ('Vegetation',),
    'terrain': ('Terrain',),
    'sky': ('Sky',),
    'person': ('Person',),
    'rider': ('Bicyclist', 'Motorcyclist', 'Other Rider'),
    'car': ('Car',),
    'truck': ('Truck',),
    'bus': ('Bus',),
    'train': ('On Rails',),
    'motorcycle': ('Motorcycle',),
    'bicycle': ('Bicycle',),
}


@DATASETS.register_module()
class MapillaryCityscapesDataset(BaseSegDataset):
    """Mapillary Vistas v1.2 with the 19 classes of Cityscapes. Pixels of all other classes are ignored.

    Published models of Cityscapes were pre-trained on it.
    """

    METAINFO = CityscapesDataset.METAINFO

    @classmethod
    def get_label_map(cls, new_classes: Sequence[str] | None = None) -> dict[int, int]:
        """Maps Mapillary's 66 labels to those of Cityscapes.

        Raises:
            ValueError: ``new_classes`` are given and not those of Cityscapes.
        """
        if new_classes is not None and list(new_classes) != list(CITYSCAPES_FROM_MAPILLARY):
            raise ValueError(f'classes must be the 19 of Cityscapes, got {tuple(new_classes)}')
        labels = {part: label for label, parts in enumerate(CITYSCAPES_FROM_MAPILLARY.values()) for part in parts}
        return {old: labels.get(name, IGNORED) for old, name in enumerate(MapillaryDataset_v1.METAINFO['classes'])}


@DATASETS.register_module()
class NYUDepthV2Dataset(BaseSegDataset):
    """NYU Depth v2 with 40 classes. Label 0 is ignored, labels 1 to 40 become 0 to 39.

    Args:
        img_suffix: Suffix of the images' names.
        seg_map_suffix: Suffix of the label images' names.
        kwargs: Arguments of ``BaseSegDataset``.
    """

    METAINFO = dict(
        classes=(
            *('wall', 'floor', 'cabinet', 'bed', 'chair', 'sofa', 'table', 'door', 'window', 'bookshelf'),
            *('picture', 'counter', 'blinds', 'desk', 'shelves', 'curtain', 'dresser', 'pillow', 'mirror', 'floor mat'),
            *('clothes', 'ceiling', 'books', 'refridgerator', 'television', 'paper', 'towel', 'shower curtain', 'box'),
            *('whiteboard', 'person', 'night stand', 'toilet', 'sink', 'lamp', 'bathtub', 'bag'),
            *('otherstructure', 'otherfurniture', 'otherprop'),
        ),
        palette=ADE20KDataset.METAINFO['palette'][:40],
    )

    def __init__(self, img_suffix: str = '.png', seg_map_suffix: str = '.png', **kwargs: Any) -> None:
        kwargs.setdefault('reduce_zero_label', True)
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)
