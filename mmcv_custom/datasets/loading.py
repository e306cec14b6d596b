"""What a dataset's pipeline loads, before chance plays a part."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

Results = dict[str, Any]


@contextmanager
def same_random_states() -> Iterator[Callable[[], bool]]:
    """Sets the random states back at the end.

    Yields:
        A function that says whether a random number was drawn since.
    """
    python, numpy, generator = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def drawn() -> bool:
        return (
            random.getstate() != python
            or any(not np.array_equal(*pair) for pair in zip(np.random.get_state(), numpy, strict=True))
            or not torch.equal(torch.get_rng_state(), generator)
        )

    try:
        yield drawn
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(generator)


class Loading:
    """The loading transforms of a pipeline: those before the first that draws a random number or packs the results.

    What they are is found by running them, and remembered. Random states stay as they are.

    Args:
        transforms: The pipeline's transforms, built.
        fixed: Key of an array, such as ``'gt_seg_map'``. A transform that changes its height or width also ends the
            loading.
        count: Counts something in the results, such as objects; ``None`` where there is nothing to count.

    Attributes:
        counts: For the last image, what ``count`` found behind each transform: (transform, number).

    Raises:
        Exception: Whatever a transform raises on data that it cannot handle.
    """

    def __init__(
        self,
        transforms: Sequence[Callable[[Results], Results | None]],
        fixed: str | None = None,
        count: Callable[[Results], int | None] | None = None,
    ) -> None:
        self.transforms, self.fixed, self.count = list(transforms), fixed, count
        self.counts: list[tuple[Callable, int]] = []

    def __call__(self, data_info: Mapping[str, Any]) -> Results | None:
        """Runs the loading transforms on an image.

        Args:
            data_info: What ``dataset.get_data_info`` gives; it stays as it is.

        Returns:
            The results; ``None`` if a transform refuses the image, for which the dataset takes another one.
        """
        while True:
            results: Results | None = copy.deepcopy(dict(data_info))
            self.counts = []
            for place, transform in enumerate(self.transforms):
                assert results is not None
                shape = self._shape(results)
                with same_random_states() as drawn:
                    results = transform(results)
                    random_ = drawn()
                if random_ or (results is not None and self._is_other(results, shape)):
                    self.transforms = self.transforms[:place]
                    break  # the transform may have changed the results in place: start again without it
                if results is None:
                    return None
                if self.count and (number := self.count(results)) is not None:
                    self.counts.append((transform, number))
            else:
                return results

    def _shape(self, results: Results) -> tuple[int, ...] | None:
        return results[self.fixed].shape[:2] if self.fixed in results else None

    def _is_other(self, results: Results, shape: tuple[int, ...] | None) -> bool:
        return 'data_samples' in results or shape not in (None, self._shape(results))
