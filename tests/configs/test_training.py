"""Shrunken models of every family overfit eight images; averaged weights, clipping, bfloat16 and TTA work."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import EMAHook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner
from mmseg.models import SegTTAModel
from numpy.typing import NDArray
from torch import nn

from mmcv_custom import PortableRunner
from mmcv_custom.checkpoint import load_safely
from mmcv_custom.cli import build_runner
from mmdet_custom import InstanceTTAModel
from tests.shrink import SIZE, shrink
from tests.support import CONFIGS
from tools import test as test_program
from tools.demo import digits


@dataclass(frozen=True)
class Family:
    """A config and how its shrunken model trains: the total loss and those with ``losses`` in the name fall by half."""

    config: str
    lr: float
    iterations: int
    losses: tuple[str, ...] = ()


MASK_RCNN = 'detection/coco/mask-rcnn_internimage-t_fpn_1x_coco.py'
CASCADE = 'detection/coco/cascade-mask-rcnn_internimage-xl_fpn_3x_coco.py'
DINO = 'detection/coco/dino-4scale_internimage-t_8xb2-12e-layer-wise-lr_coco.py'
CBDINO = 'detection/coco/dino-4scale_cb-internimage-h_b1-20k_objects365-coco.py'
UPERNET = 'segmentation/ade20k/internimage-l_upernet_8xb2-160k_ade20k-640x640.py'
MASK2FORMER = 'segmentation/cityscapes/internimage-h_mask2former_8xb2-80k_mapillary-cityscapes-1024x1024.py'
SEGFORMER = 'segmentation/cityscapes/internimage-l_segformer_8xb2-160k_mapillary-cityscapes-512x1024.py'
FAMILIES = {
    'mask-rcnn': Family(MASK_RCNN, 1.5e-3, 180),
    'cascade-mask-rcnn': Family(CASCADE, 1.5e-3, 140),
    'dino': Family(DINO, 1e-3, 160, ('dn_loss_cls',)),
    'dino-denoising': Family(DINO, 1e-3, 500, ('dn_loss',)),  # boxes take longer
    'cbdino': Family(CBDINO, 5e-4, 160, ('dn_loss_cls', 'assistant.')),
    'upernet': Family(UPERNET, 3e-3, 150, ('aux.',)),
    'mask2former': Family(MASK2FORMER, 2e-3, 120, ('loss_cls', 'loss_dice')),
    'segformer': Family(SEGFORMER, 3e-3, 150),
}
# Lowest scores on the training images. Background everywhere, or random detections, would score less.
LEARNED = {'coco/bbox_mAP_50': 0.5, 'coco/segm_mAP_50': 0.3, 'mIoU': 25.0}

Configure = Callable[..., Config]


@pytest.fixture(scope='module')
def configure(tmp_path_factory: pytest.TempPathFactory) -> Configure:
    """Makes the shrunken config of a family; ``lr`` and ``iterations`` replace the family's own."""
    data = tmp_path_factory.mktemp('digits')
    digits.generate(data, train=8, val=1, size=SIZE)

    def config(name: str, **options: Any) -> Config:
        family = FAMILIES[name]
        cfg = shrink(CONFIGS / family.config, data, **{'lr': family.lr, 'iterations': family.iterations, **options})
        cfg.work_dir = str(tmp_path_factory.mktemp(name))
        cfg.experiment_name = cfg.work_dir  # the default, the time in seconds, could give two runs one history
        return cfg

    return config


@pytest.fixture(scope='module')
def trained(configure: Configure) -> Callable[[str], Runner]:
    """Trains a family, once, and returns its runner."""

    @cache
    def train(name: str) -> Runner:
        runner = PortableRunner.from_cfg(configure(name))
        runner.train()
        return runner

    return train


def losses(runner: Runner, part: str) -> NDArray[np.float64]:
    """The sum of the losses with ``part`` in their names, per iteration."""
    found = [
        np.asarray(scalar.data[0])
        for name, scalar in runner.message_hub.log_scalars.items()
        if name.startswith('train/') and 'loss' in name and part in name and name != 'train/loss'
    ]
    assert found, part
    return np.sum(found, axis=0)


def fall_by_half(values: NDArray[np.float64]) -> bool:
    return values[-10:].mean() < values[:5].mean() / 2


def scores(runner: Runner, split: str) -> dict[str, float]:
    scalars = runner.message_hub.log_scalars
    found = {metric: scalars[f'{split}/{metric}'].current() for metric in LEARNED if f'{split}/{metric}' in scalars}
    assert found
    return found


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=pytest.mark.slow if name == 'dino-denoising' else ()) for name in FAMILIES]
)
def test_eight_images_are_learned(name: str, trained: Callable[[str], Runner]) -> None:
    runner = trained(name)
    for part in ('', *FAMILIES[name].losses):
        assert fall_by_half(losses(runner, part)), part
    for metric, score in scores(runner, 'val').items():
        assert score > LEARNED[metric], metric


@pytest.mark.parametrize('name', ['dino', 'upernet'])
def test_without_a_learning_rate_nothing_is_learned(name: str, configure: Configure) -> None:
    runner = PortableRunner.from_cfg(configure(name, lr=0.0, iterations=12))
    runner.train()
    for part in ('', *FAMILIES[name].losses):
        assert not fall_by_half(losses(runner, part)), part
    for metric, score in scores(runner, 'val').items():
        assert score < LEARNED[metric] / 2, metric


def test_averaged_weights_are_evaluated_and_saved(configure: Configure) -> None:
    """As in the published schedule of Cascade Mask R-CNN."""
    runner = PortableRunner.from_cfg(configure('cascade-mask-rcnn', iterations=3))
    evaluated = []

    def watch(backbone: nn.Module, *_: Any) -> None:
        if not backbone.training:
            evaluated.append(backbone.patch_embed.conv1.weight.detach().clone())

    runner.model.backbone.register_forward_pre_hook(watch)
    runner.train()
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    name = 'backbone.patch_embed.conv1.weight'
    averaged, last = (model.get_parameter(name) for model in (hook.ema_model.module, runner.model))
    assert not torch.equal(averaged, last)
    assert len(evaluated) == 2 and all(torch.equal(weight, averaged) for weight in evaluated)
    saved = load_safely(Path(runner.work_dir, 'iter_3.pth'))
    assert torch.equal(saved['state_dict'][name], averaged)
    assert torch.equal(saved['ema_state_dict'][f'module.{name}'], last)


def test_gradients_are_clipped(configure: Configure) -> None:
    cfg = configure('upernet', iterations=3)
    runner = PortableRunner.from_cfg(cfg)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    norms = []

    def watch(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        gradients = [parameter.grad for group in optimizer.param_groups for parameter in group['params']]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    runner.optim_wrapper.optimizer.register_step_pre_hook(watch)
    runner.train()
    limit = cfg.optim_wrapper.clip_grad.max_norm
    assert runner.message_hub.get_scalar('train/grad_norm').data[0].min() > limit  # before clipping
    assert norms == pytest.approx([limit] * 3, rel=1e-3)


def test_bfloat16_learns_too(configure: Configure) -> None:
    cfg = configure('segformer', iterations=60)
    cfg.optim_wrapper.type = 'CPUAmpOptimWrapper'
    runner = PortableRunner.from_cfg(cfg)
    dtypes: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    operator = runner.model.backbone.levels[0].blocks[0].dcn
    operator.register_forward_hook(lambda module, _, output: dtypes[module.training].add(output.dtype))
    runner.train()
    assert dtypes == {True: {torch.bfloat16}, False: {torch.float32}}
    assert {parameter.dtype for parameter in runner.model.parameters()} == {torch.float32}
    assert fall_by_half(losses(runner, ''))


@pytest.mark.parametrize('name', [name for name in FAMILIES if name != 'dino-denoising'])
def test_bfloat16_changes_losses_little(name: str, configure: Configure) -> None:
    """Including losses after operators of mmcv that do not support bfloat16."""
    cfg = configure(name)
    init_default_scope(cfg.default_scope)
    batch = pseudo_collate(list(DATASETS.build(cfg.train_dataloader.dataset)))
    sums = []
    for wrapper in ('OptimWrapper', 'CPUAmpOptimWrapper'):
        torch.manual_seed(0)
        model = MODELS.build(deepcopy(cfg.model)).train()  # DINO writes into it
        model.init_weights()
        found = model.train_step(batch, build_optim_wrapper(model, {**cfg.optim_wrapper, 'type': wrapper}))
        sums.append(float(found['loss']))
    exact, rounded = sums
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize(
    ('name', 'merger'), [('mask-rcnn', InstanceTTAModel), ('upernet', SegTTAModel)], ids=['mask-rcnn', 'upernet']
)
def test_views_of_several_sizes_are_merged(
    name: str, merger: type, trained: Callable[[str], Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By tools/test.py, with the config's views in other sizes."""
    cfg = trained(name).cfg.copy()
    sizes = [(SIZE, SIZE), (SIZE * 5 // 4, SIZE * 5 // 4)]
    if name == 'upernet':
        cfg.tta_pipeline[1].update(scale=sizes[0], ratios=(1.0, 1.25), size_divisor=16)
    else:
        cfg.tta_pipeline[1].transforms[0] = [dict(type='Resize', scale=size) for size in sizes]
    path = Path(cfg.work_dir, 'views.py')
    cfg.dump(path)
    merge, merged, runners = merger.merge_preds, [], []

    def watch_merging(self: nn.Module, images: list[list[Any]]) -> list[Any]:
        merged.extend([(*view.img_shape[:2], view.flip) for view in views] for views in images)
        return merge(self, images)

    def watch_building(final: Config) -> Runner:
        runners.append(build_runner(final))
        return runners[0]

    monkeypatch.setattr(merger, 'merge_preds', watch_merging)
    monkeypatch.setattr(test_program, 'build_runner', watch_building)
    checkpoint = Path(cfg.work_dir, f'iter_{FAMILIES[name].iterations}.pth')
    monkeypatch.setattr('sys.argv', ['test.py', str(path), str(checkpoint), '--tta'])
    test_program.main()
    assert [sorted(views) for views in merged] == [[(*size, flip) for size in sizes for flip in (False, True)]] * 8
    assert scores(runners[0], 'test').keys() == scores(trained(name), 'val').keys()
