"""The metric of LVIS, made to work with current numpy."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from mmdet.evaluation import LVISMetric
from mmengine.registry import METRICS


@METRICS.register_module()
class CompatLVISMetric(LVISMetric):
    """Takes the arguments of mmdet's metric of LVIS and runs it with numpy 1.24 and newer.

    The last release of the lvis package, 0.5.3, uses ``np.float``, which numpy 1.24 removed.
    """

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Scores in [0, 1] by name (``bbox_AP`` ...) of the results that ``process`` collected."""
        with patch.object(np, 'float', float, create=True):
            return super().compute_metrics(results)
