"""The formats that mmdet reads like that of COCO, with differences."""

from __future__ import annotations

import re

from mmcv_custom.datasets import DATA_CHECKS
from mmcv_custom.datasets.coco_rules import CocoRules

from .coco import CocoCheck
from .detection import DetectionCheck


@DATA_CHECKS.register_module(name='LVISV05Dataset')
class LVISCheck(CocoCheck):
    """Checks a dataset of an LVIS v0.5 JSON file, whose names of images may begin with that of their split."""

    rules = CocoRules(lambda image: re.sub(r'^COCO.*(?=.{16}$)', '', image['file_name']), by_name=False)


@DATA_CHECKS.register_module(name='LVISV1Dataset')
class LVISV1Check(CocoCheck):
    """Checks a dataset of an LVIS v1 JSON file, which names images by their URLs at COCO."""

    rules = CocoRules(lambda image: '/'.join(image['coco_url'].split('/')[-2:]), by_name=False)


@DATA_CHECKS.register_module(name='Objects365V1Dataset')
class Objects365V1Check(CocoCheck):
    """Checks a dataset of an Objects365 v1 JSON file."""

    rules = CocoRules(sorted_ids=True)


@DATA_CHECKS.register_module(name='Objects365V2Dataset')
class Objects365V2Check(CocoCheck):
    """Checks a dataset of an Objects365 v2 JSON file."""

    rules = CocoRules(lambda image: '/'.join(image['file_name'].split('/')[-2:]))


@DATA_CHECKS.register_module(name='CocoPanopticDataset')
class PanopticCheck(DetectionCheck):
    """Checks nothing: segments of panoptic files have no boxes."""

    def structure(self) -> None:
        """Says so."""
        self.report.leave_out(f'{self.source.key} ({self.source.cfg["type"]}: segments of panoptic files)')

    def conservation(self) -> None:
        """Nothing that :meth:`structure` has not said."""
