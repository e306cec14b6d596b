"""Hooks of tools/test.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mmcv
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement


@HOOKS.register_module()
class CompleteCheckpointHook(Hook):
    """Makes :class:`PortableRunner` refuse a checkpoint that does not fill the whole model.

    MMEngine would log a warning and go on. Tensors that the model does not use are ignored.
    """


@HOOKS.register_module()
class PictureHook(Hook):
    """Draws every tested image with the config's visualizer, the truth on the left and the prediction on the right.

    With several processes only the first one draws, and only the images that it tests.

    Args:
        out_dir: Folder of the pictures, which are named after the images.
    """

    def __init__(self, out_dir: str) -> None:
        self.out_dir = Path(out_dir)

    def before_test(self, runner: Runner) -> None:
        """Leaves out colours that do not suffice."""
        runner.visualizer.dataset_meta = drawable(runner.visualizer.dataset_meta)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: Sequence[BaseDataElement] | dict | None = None,
    ) -> None:
        """Draws one batch of results."""
        self.out_dir.mkdir(parents=True, exist_ok=True)
        for result in outputs or ():
            image = mmcv.imfrombytes(get(result.img_path), channel_order='rgb')
            name = Path(result.img_path).with_suffix('.png').name
            runner.visualizer.add_datasample(name, image, result, out_file=str(self.out_dir / name))


def drawable(metainfo: dict | None) -> dict | None:
    """What a dataset says of itself, without its colours if they are fewer than the classes.

    mmdet's visualizer then takes its own colours, instead of failing. A dataset of 100 classes that is derived from
    that of COCO inherits 80 colours.
    """
    if metainfo is None:
        return None
    palette = metainfo.get('palette')
    if isinstance(palette, list) and len(palette) < len(metainfo.get('classes') or ()):  # a tuple is one colour for all
        return {**metainfo, 'palette': None}
    return metainfo
