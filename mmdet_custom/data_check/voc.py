"""The data check of datasets in the format of PASCAL VOC."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

import torch
from mmdet.evaluation import VOCMetric
from mmengine.registry import METRICS

from mmcv_custom.datasets import DATA_CHECKS, Harm, class_of, silence
from mmcv_custom.datasets.images import MASKS, sample
from mmcv_custom.texts import in_words

from .detection import DetectionCheck
from .oracle import BEST


@DATA_CHECKS.register_module(name='XMLDataset')
class VOCCheck(DetectionCheck):
    """Checks a dataset of XML files."""

    def oracle(self, labels: Mapping[str, int]) -> None:
        """Judges the boxes of the XML files as predictions, with the metric of VOC."""
        if not self.source.is_local:
            return  # said before
        for evaluator in self.source.evaluators:
            if self._can_judge(evaluator):
                self._judge(evaluator, labels)
            else:
                self.leave_out_metric(evaluator)

    def _can_judge(self, evaluator: Mapping[str, Any]) -> bool:
        built_class = class_of(METRICS, evaluator)
        asked = evaluator.get('metric', 'mAP')
        return built_class is not None and issubclass(built_class, VOCMetric) and asked in ('mAP', ['mAP'])

    def _judge(self, evaluator: Mapping[str, Any], labels: Mapping[str, int]) -> None:
        dataset = self.source.build()
        try:
            with silence():
                metric = METRICS.build(dict(evaluator))
                metric.dataset_meta = dataset.metainfo
                for index in sample(range(len(dataset)), MASKS):
                    found = dataset[index]['data_samples'].to_dict()
                    found['pred_instances'] = _objects(dataset.get_data_info(index)['xml_path'], labels)
                    metric.process({}, [found])
                scores = metric.compute_metrics(metric.results)
        except Exception as problem:  # of any transform and metric, on damaged data
            self._fails('truth cannot be evaluated', f'{self.source.key}: {in_words(problem)}')
            return
        if scores['mAP'] < BEST:
            self.report.error(
                Harm.WRONG,
                'truth is not reached',
                self.source.split,
                f'the boxes of the XML files as predictions reach mAP {scores["mAP"]:.3f} in {self.source.key}, '
                'expected 1.0: the labels or boxes that are evaluated are not those that are trained',
            )


def _objects(path: str, labels: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """The objects of an XML file that are not difficult, as a perfect prediction."""
    boxes, numbers = [], []
    for element in ET.parse(path).getroot().findall('object'):
        name, box = element.findtext('name', ''), element.find('bndbox')
        if name in labels and box is not None and element.findtext('difficult', '0').strip() == '0':
            corners = [float(box.findtext(side, 'nan')) for side in ('xmin', 'ymin', 'xmax', 'ymax')]
            boxes.append([corner - 1 for corner in corners])  # the format counts pixels from 1
            numbers.append(labels[name])
    return {
        'bboxes': torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        'scores': torch.ones(len(boxes)),
        'labels': torch.tensor(numbers, dtype=torch.int64),
    }
