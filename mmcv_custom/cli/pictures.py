"""Pictures of training samples."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS, VISUALIZERS, DefaultScope

from ..datasets import silence
from ..datasets.images import sample
from ..datasets.loading import same_random_states
from ..engine.hooks import drawable
from ..errors import UserError


def draw_samples(cfg: Config, folder: str, split: str = 'train', count: int = 16) -> list[Path]:
    """Draws samples of a dataset as its whole pipeline gives them, the truth on top.

    Args:
        cfg: The config. Its visualizer draws.
        folder: Folder of the pictures.
        split: ``'train'``, ``'val'`` or ``'test'``.
        count: Number of samples, evenly spaced.

    Returns:
        The files, one per sample.
    """
    files = []
    with DefaultScope.overwrite_default_scope(str(cfg.get('default_scope') or 'mmengine')), same_random_states():
        with silence():
            dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
        visualizer = VISUALIZERS.build({**cfg.visualizer, 'name': 'samples', 'vis_backends': []})
        visualizer.dataset_meta = drawable(dataset.metainfo)
        for index in sample(range(len(dataset)), count):
            try:
                item = dataset[index]
            except Exception as problem:  # of any transform, on damaged data: the data check says what
                raise UserError(
                    f'cannot draw sample {index} of {split}: {type(problem).__name__}: {problem}'
                ) from problem
            image = item['inputs'].permute(1, 2, 0).numpy()[..., ::-1]  # mmcv loads blue first
            truth = item['data_samples']
            instances = truth.get('gt_instances')
            if instances is not None and hasattr(instances.get('bboxes'), 'tensor'):
                instances.bboxes = instances.bboxes.tensor  # mmdet's visualizer cannot draw its boxes
            files.append(Path(folder, f'{index:06}_{Path(getattr(truth, "img_path", "sample")).stem}.png'))
            visualizer.add_datasample('sample', image, truth, draw_pred=False, out_file=str(files[-1]))
    return files
