"""The data check of semantic segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmseg.datasets import BaseSegDataset

from mmcv_custom.datasets import DATA_CHECKS, DatasetCheck

from .conservation import Conservation
from .fix import fix_masks
from .layer import Layer
from .oracle import Oracle
from .structure import Structure


@DATA_CHECKS.register_module(name='BaseSegDataset')
class SegmentationCheck(DatasetCheck):
    """Checks a dataset of images and masks. The arguments are those of ``DatasetCheck``."""

    _dataset: BaseSegDataset | None = None

    def structure(self) -> None:
        """Settings, files that belong together, headers of images, formats, sizes and values of masks."""
        if self._applies():
            Structure(self.source, self.report, self.full).run()

    def conservation(self) -> None:
        """Images that are left out, and the label that every pixel of a mask gets."""
        if self._applies():
            layer = Conservation(self.source, self.report, self.full)
            self._dataset = layer.build()
            if self._dataset is not None:
                layer.run(self._dataset)

    def fix(self, folder: str) -> list[str]:
        """Writes repaired masks. See the base class."""
        return fix_masks(self.source, folder)

    def oracle(self, train: DatasetCheck | None) -> None:
        """The masks as predictions, through IoUMetric."""
        layer = Oracle(self.source, self.report, self.full)
        if self._applies() and layer.loader is not None:
            dataset = self._dataset if self._dataset is not None else layer.build()
            if dataset is not None:
                labels = train.labels() if train is not None else {}
                layer.run(dataset, labels or _labels(dataset))

    def labels(self) -> Mapping[str, int]:
        """The label of each class."""
        return _labels(self._dataset or self.source.build(lazy_init=True, pipeline=[]))

    def images(self) -> Sequence[str]:
        """Paths of all images."""
        dataset = self._dataset
        return [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))] if dataset else []

    def _applies(self) -> bool:
        if not self.source.is_local:
            Layer(self.source, self.report, self.full).leave_out('files, which are not on this machine')
        return self.source.is_local


def _labels(dataset: BaseSegDataset | None) -> dict[str, int]:
    classes = dataset.metainfo.get('classes') if dataset is not None else None
    return {name: label for label, name in enumerate(classes or ())}
