"""Errors of a dataset's pipeline, with the image that caused them."""

from __future__ import annotations

from collections.abc import Iterator
from traceback import format_exception_only
from typing import Any

from mmengine.dataset import Compose

from ..errors import UserError


class PipelineError(UserError):
    """A transform failed on an image, which the text names.

    From a worker of a loader only the text of an exception arrives, behind the worker's traceback. It becomes this
    text again, and the traceback that of the cause.
    """

    def __init__(self, text: str) -> None:
        traceback, _, own = text.rpartition(f'{type(self).__name__}: ')
        super().__init__(own.strip())
        if traceback:
            self.__cause__ = RuntimeError(text)


class NamingPipeline(Compose):
    """MMEngine's pipeline, whose errors name the image."""

    def __call__(self, data: dict) -> dict | None:
        """Applies the transforms.

        Raises:
            PipelineError: A transform failed.
        """
        path = data.get('img_path', f'item {data.get("sample_idx")}')
        result: Any = data
        for transform in self.transforms:
            try:
                result = transform(result)
            except UserError:
                raise
            except Exception as problem:
                height, width = result.get('img_shape', ())[:2] or (None, None)
                size = f' ({width} x {height} pixels)' if width else ''
                reason = ' '.join(''.join(format_exception_only(problem)).split())
                raise PipelineError(
                    f'{type(transform).__name__} fails on {path}{size}: {reason}. Repair this image '
                    'or its annotations, or leave it out of the dataset'
                ) from problem
            if result is None:  # the dataset takes another image
                return None
        return result


def name_images(dataset: Any) -> None:
    """Lets the errors of a dataset's pipeline name the image, also of the datasets that it wraps."""
    for inner in datasets_in(dataset):
        if type(getattr(inner, 'pipeline', None)) is Compose:
            inner.pipeline = NamingPipeline(inner.pipeline.transforms)


def datasets_in(dataset: Any) -> Iterator[Any]:
    """A dataset and all that it wraps, such as RepeatDataset and ConcatDataset do."""
    yield dataset
    attributes = vars(dataset) if hasattr(dataset, '__dict__') else {}
    for wrapped in [attributes.get('dataset'), attributes.get('_dataset'), *(attributes.get('datasets') or ())]:
        if wrapped is not None:
            yield from datasets_in(wrapped)
