"""Layer 1 of the data check for COCO instances: what can be said of the file and its images alone."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmcv_custom.errors import UserError

from .coco import CocoFile
from .report import Harm, Report
from .sources import Source


@dataclass(frozen=True)
class CocoRules:
    """How a dataset class reads a COCO file. The defaults are those of mmdet's CocoDataset.

    Attributes:
        file_name: The image file below the image folder, from an entry of ``images``. May raise ``KeyError``.
        by_name: Whether it selects the categories by name; else a category's label is its place in the file.
        sorted_ids: Whether labels follow the ids of the categories; else their order in the file.
    """

    file_name: Callable[[Mapping[str, Any]], str] = operator.itemgetter('file_name')
    by_name: bool = True
    sorted_ids: bool = False


def check_structure(
    path: str,
    source: Source,
    report: Report,
    needs_masks: bool,
    classes: Sequence[str] | None,
    full: bool = False,
    rules: CocoRules = CocoRules(),
) -> CocoFile | None:
    """Checks an annotation file and its images.

    Args:
        path: The annotation file.
        source: The dataset that it belongs to.
        report: Takes what is found.
        needs_masks: Whether the dataset's pipeline or its metric uses masks.
        classes: ``metainfo.classes``, or the dataset class's own; ``None`` if it has none.
        full: Read the header of every image file.
        rules: How the dataset class reads the file.

    Returns:
        The file; ``None`` if it cannot be read as such.
    """
    try:
        file = CocoFile.read(path)
    except UserError as problem:
        report.error(Harm.FAILS, 'annotation file', source.split, str(problem))
        return None
    return file
