"""The data check of semantic segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmcv_custom.datasets import DATA_CHECKS

from .base import MaskCheck
from .conservation import check_conservation
from .fix import fix_masks
from .oracle import check_oracle
from .structure import check_structure


@DATA_CHECKS.register_module(name='BaseSegDataset')
class SegmentationCheck(MaskCheck):
    """Checks a dataset of images and masks. The arguments are those of ``DatasetCheck``."""

    def structure(self) -> None:
        """Settings, files that belong together, headers of images, formats, sizes and values of masks."""
        if self._applies():
            check_structure(self)

    def conservation(self) -> None:
        """Images that are left out, and the label that every pixel of a mask gets."""
        if self._applies() and self.dataset is not None:
            check_conservation(self, self.dataset)

    def fix(self, folder: str) -> list[str]:
        """Writes repaired masks. See the base class."""
        return fix_masks(self.source, folder)

    def oracle(self, labels: Mapping[str, int]) -> None:
        """The masks as predictions, through IoUMetric."""
        if self._applies() and self.loader is not None and self.dataset is not None:
            check_oracle(self, self.dataset, labels)

    def labels(self) -> Mapping[str, int]:
        """The label of each class."""
        classes = self.source.build(lazy_init=True, pipeline=[]).metainfo.get('classes')
        return {name: label for label, name in enumerate(classes or ())}

    def images(self) -> Sequence[str]:
        """Paths of all images."""
        dataset = self.dataset if self.source.is_local else None
        return [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))] if dataset else []

    def _applies(self) -> bool:
        if not self.source.is_local:
            self.leave_out('files, which are not on this machine')
        return self.source.is_local
