"""The metric of LVIS, kept working with today's numpy."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from mmdet.evaluation import LVISMetric
from mmengine.registry import METRICS


@METRICS.register_module()
class CompatLVISMetric(LVISMetric):
    """mmdet's metric of LVIS, of which the arguments are.

    The last release of the lvis package, 0.5.3, asks for ``np.float``, which numpy 1.24 took away.
    """

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Scores in [0, 1] by name (``bbox_AP`` ...) of what ``process`` collected."""
        with patch.object(np, 'float', float, create=True):
            return super().compute_metrics(results)
