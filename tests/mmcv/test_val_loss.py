"""The loss on the validation set: its value, what it leaves alone, and how its loader is derived."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmcv_custom import PortableRunner
from mmcv_custom.engine.val_loss import SAMPLER, ValLossHook, default_loader, with_annotations
from mmcv_custom.errors import UserError
from tests.support import CONFIGS, Run

TRAIN = torch.arange(8.0)[:, None]
VAL = torch.tensor([[1.0], [2.0], [3.0], [4.0], [10.0]])


class Model(BaseModel):
    """Has what a loss must leave alone: batch norm, dropout, a counter, and random choices of three kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        nn.init.ones_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.norm = nn.BatchNorm1d(1)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer('seen', torch.zeros(()))
        self.modes: list[tuple[bool, ...]] = []

    def forward(self, *inputs: Tensor, mode: str) -> Any:
        outputs = self.dropout(self.norm(self.layer(torch.stack(inputs))))
        if mode != 'loss':
            return list(outputs)
        self.seen += len(inputs)
        self.modes.append((self.training, self.norm.training, self.dropout.training, torch.is_grad_enabled()))
        chance = torch.rand(()) + np.random.rand() + random.random()
        return dict(loss_square=outputs.square().mean(), loss_random=0 * outputs.sum() + chance, acc=outputs.mean())


class Falling(BaseMetric):
    """A metric that is best at first; without results, none."""

    default_prefix = 'falling'

    def __init__(self, empty: bool = False) -> None:
        super().__init__()
        self.value, self.empty = 1.0, empty

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict:
        self.value /= 2
        return {} if self.empty else dict(mAP=self.value)


def make_runner(work_dir: Path, *hooks: Any, iterations: int = 4, interval: int = 2, **options: Any) -> PortableRunner:
    torch.manual_seed(0)
    loader = dict(batch_size=2, num_workers=0)
    settings: dict[str, Any] = dict(
        train_dataloader=dict(loader, dataset=list(TRAIN), sampler=dict(type='InfiniteSampler')),
        val_dataloader=dict(loader, dataset=list(VAL), sampler=dict(type='DefaultSampler', shuffle=False)),
        train_cfg=dict(by_epoch=False, max_iters=iterations, val_interval=interval),
        val_cfg=dict(),
        val_evaluator=dict(type=Falling),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False)),
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        log_processor=dict(by_epoch=False),
        custom_hooks=list(hooks),
        experiment_name=f'{work_dir.name}_{id(hooks)}',
        log_level='ERROR',
        randomness=dict(seed=0),
    )
    return PortableRunner(Model(), str(work_dir), **{**settings, **options})


def val_loss(**options: Any) -> ValLossHook:
    sampler = dict(type='DefaultSampler', shuffle=False)
    loader = dict(dataset=list(VAL), batch_size=2, num_workers=0, sampler=sampler)
    return ValLossHook(dataloader={**loader, **options.pop('dataloader', {})}, **options)


def scalars(work_dir: Path) -> list[dict[str, float]]:
    lines = next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()
    return [json.loads(line) for line in lines]


class Watch(Hook):
    """Notes the metrics that hooks see, and the mode of the modules after an evaluation."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []
        self.training: list[bool] = []

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        self.metrics.append(dict(metrics or {}))
        self.training += [module.training for module in runner.model.modules()]


def test_the_loss_is_the_mean_over_the_images(tmp_path: Path) -> None:
    """Five images in batches of two, without batch norm's statistics of the batch and without dropout."""
    watch = Watch()
    runner = make_runner(tmp_path, val_loss(), watch)
    runner.train()
    model = runner.model.eval()
    with torch.no_grad():
        outputs = model.norm(model.layer(VAL))
    metrics = watch.metrics[-1]
    assert metrics['val/loss_square'] == pytest.approx(float(outputs.square().mean()))
    assert metrics['val/loss'] == pytest.approx(metrics['val/loss_square'] + metrics['val/loss_random'])
    assert 'val/acc' not in metrics and 'falling/mAP' in metrics
    assert watch.metrics[0]['val/loss_random'] == pytest.approx(metrics['val/loss_random'])  # the same choices
    assert model.modes[-1] == (True, False, False, False)
    assert not any(watch.training)  # evaluated


def test_images_of_a_batch_are_not_augmented(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, val_loss())
    preprocessor = runner.model.data_preprocessor
    preprocessor.batch_augments = augments = ['resize at random']
    seen: list[Any] = []
    preprocessor.register_forward_hook(lambda *_: seen.append(preprocessor.batch_augments))
    runner.train()
    assert None in seen and augments in seen  # in losses of validation; in training
    assert preprocessor.batch_augments is augments


def test_the_curve_has_every_loss_by_itself(tmp_path: Path) -> None:
    """Neither smoothed over evaluations, as MMEngine does with what is called loss, nor under the training's name."""
    watch = Watch()
    make_runner(tmp_path, val_loss(), watch, iterations=8).train()
    lines = scalars(tmp_path)
    evaluations = [line for line in lines if 'falling/mAP' in line]
    assert [line['val/loss'] for line in evaluations] == [pytest.approx(seen['val/loss']) for seen in watch.metrics]
    assert len({line['val/loss'] for line in evaluations}) == 4
    assert all('loss' not in line for line in evaluations)
    assert [line['step'] for line in lines if 'val/loss' in line] == [2, 4, 6, 8]


def test_the_training_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    with_loss = make_runner(tmp_path / 'with', val_loss(), iterations=6)
    with_loss.train()
    without = make_runner(tmp_path / 'without', iterations=6)  # seeds the random numbers again
    without.train()
    for name, tensor in without.model.state_dict().items():
        assert torch.equal(tensor, with_loss.model.state_dict()[name]), name
    training = [[line['loss'] for line in scalars(tmp_path / name) if 'loss' in line] for name in ('with', 'without')]
    assert training[0] == training[1] and len(training[0]) == 6
    assert with_loss.model.seen == 12  # the images of the training


def test_every_second_evaluation(tmp_path: Path) -> None:
    watch = Watch()
    make_runner(tmp_path, val_loss(interval=2), watch, iterations=8).train()
    assert ['val/loss' in metrics for metrics in watch.metrics] == [False, True, False, True]


def test_without_the_hook_there_is_no_loss(tmp_path: Path) -> None:
    watch = Watch()
    make_runner(tmp_path, watch).train()
    assert [list(metrics) for metrics in watch.metrics] == [['falling/mAP']] * 2


def test_an_evaluation_without_metrics_stays_one(tmp_path: Path) -> None:
    """Else save_best='auto' would take the loss for the metric of the whole training."""
    watch = Watch()
    make_runner(tmp_path, val_loss(), watch, val_evaluator=dict(type=Falling, empty=True)).train()
    assert watch.metrics == [{}, {}]
    assert [line['step'] for line in scalars(tmp_path) if 'val/loss' in line] == [2, 4]


@pytest.mark.parametrize(
    ('monitor', 'options', 'stopped'),
    [
        ('falling/mAP', dict(patience=2, min_delta=0.001), 6),  # best at the first evaluation, at 2
        ('val/loss', dict(patience=2, min_delta=1e9), 6),  # never so much better
        ('val/loss', dict(patience=2, min_delta=0), 12),  # falls all the time
    ],
)
def test_early_stopping(tmp_path: Path, monitor: str, options: dict, stopped: int) -> None:
    early = dict(type='EarlyStoppingHook', monitor=monitor, **options)
    runner = make_runner(tmp_path, val_loss(), early, iterations=12)
    runner.train()
    assert runner.iter == stopped


def test_the_best_checkpoint_by_the_loss(tmp_path: Path) -> None:
    checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=9, save_best='val/loss')
    make_runner(tmp_path, val_loss(), default_hooks=dict(checkpoint=checkpoint)).train()
    assert [path.name for path in tmp_path.glob('best*')] == ['best_val_loss_iter_4.pth']


def loss_of_one_image_each(work_dir: Path, launcher: str) -> float:
    """The loss on the validation set in batches of one image, after a step that changes no weight."""
    watch = Watch()
    same = dict(dataset=[TRAIN[3]] * 8, batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler'))
    still = dict(optimizer=dict(type='SGD', lr=0.0))
    hook = val_loss(dataloader=dict(batch_size=1))
    options = dict(train_dataloader=same, optim_wrapper=still, launcher=launcher)
    make_runner(work_dir, hook, watch, iterations=1, interval=1, **options).train()
    return watch.metrics[-1]['val/loss']


PROGRAM = """
import os
import sys
from pathlib import Path

from tests.mmcv.test_val_loss import loss_of_one_image_each

folder = Path(sys.argv[1])
(folder / os.environ['RANK']).write_text(repr(loss_of_one_image_each(folder / 'two', 'pytorch')))
"""


def test_two_processes_get_the_loss_of_one(run: Run, tmp_path: Path) -> None:
    """Five images: one process has three and the other two, and repeats one so that both have work."""
    program = tmp_path / 'program.py'
    program.write_text(PROGRAM)
    launch = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    run(*launch, program, tmp_path)
    expected = repr(loss_of_one_image_each(tmp_path / 'one', 'none'))
    assert [(tmp_path / rank).read_text() for rank in ('0', '1')] == [expected] * 2


# The loader.

LOAD, TRUTH = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)
RESIZE, FLIP = dict(type='Resize', scale=(8, 8)), dict(type='RandomFlip', prob=0.5)
PACK, PACK_META = dict(type='mmdet.PackDetInputs'), dict(type='PackDetInputs', meta_keys=('img_id',))


def test_the_pipeline_has_truth_and_no_chance() -> None:
    crop = dict(type='RandomCrop', crop_size=(4, 4))
    derived = with_annotations([LOAD, RESIZE, TRUTH, PACK_META], [LOAD, TRUTH, crop, FLIP, PACK])
    assert derived == [LOAD, TRUTH, RESIZE, PACK]


@pytest.mark.parametrize('pipeline', [[], [LOAD, FLIP, PACK], [LOAD, TRUTH]])
def test_a_training_pipeline_without_truth_is_named(pipeline: list) -> None:
    with pytest.raises(UserError, match=r'Load\.\.\.Annotations and Pack\.\.\. in the pipeline of train_dataloader'):
        with_annotations([LOAD, RESIZE, PACK], pipeline)


def derived(train: dict, val: dict) -> dict[str, Any]:
    return default_loader(dict(train_dataloader=dict(dataset=train), val_dataloader=dict(batch_size=3, dataset=val)))


def test_wrapped_datasets_are_found() -> None:
    train = dict(type='MultiImageMixDataset', pipeline=[FLIP, PACK], dataset=dict(pipeline=[LOAD, TRUTH]))
    val = dict(type='ConcatDataset', datasets=[dict(pipeline=[LOAD, RESIZE, PACK_META]), dict(pipeline=[LOAD, PACK])])
    loader = derived(train, val)
    found = [dataset['pipeline'] for dataset in loader['dataset']['datasets']]
    assert found == [[LOAD, TRUTH, RESIZE, PACK], [LOAD, TRUTH, PACK]]
    assert loader['batch_size'] == 3 and val['datasets'][0]['pipeline'] == [LOAD, RESIZE, PACK_META]


def test_a_dataset_without_a_pipeline_is_named() -> None:
    with pytest.raises(UserError, match='no pipeline in val_dataloader.dataset: set its dataloader'):
        derived(dict(pipeline=[LOAD, TRUTH, PACK]), dict(type='X'))


def test_without_a_config_the_loader_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='ValLossHook needs its dataloader'):
        make_runner(tmp_path, ValLossHook()).train()


@pytest.mark.parametrize(
    'wrong',
    [
        dict(sampler=dict(type='DefaultSampler', shuffle=True)),
        dict(sampler=dict(type='InfiniteSampler', shuffle=False)),
        dict(sampler=dict(type='DefaultSampler')),  # shuffles
        dict(drop_last=True),
    ],
)
def test_a_loader_that_leaves_images_out_is_refused(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(UserError, match='must read every image once'):
        make_runner(tmp_path, val_loss(dataloader=wrong)).train()


@pytest.mark.parametrize('interval', [0, -1, 1.5, '2'])
def test_the_interval_counts_evaluations(interval: Any) -> None:
    with pytest.raises(UserError, match='interval of ValLossHook must be a positive whole number'):
        ValLossHook(interval)


def test_without_evaluations_it_is_refused(tmp_path: Path) -> None:
    nothing = dict(val_dataloader=None, val_cfg=None, val_evaluator=None)
    with pytest.raises(UserError, match='ValLossHook needs an evaluation'):
        make_runner(tmp_path, val_loss(), **nothing).train()


# Real models.


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'terms'),
    [
        ('mask-rcnn', {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask'}),
        ('dino', {'loss_cls', 'dn_loss_cls', 'enc_loss_iou', 'd0.dn_loss_bbox'}),
        ('upernet', {'decode.loss_ce', 'aux.loss_ce'}),
    ],
)
def test_the_demo_models(name: str, terms: set[str], workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The terms are those of the training. Of the same weights the loss is the same, and only of those."""
    monkeypatch.chdir(workplace)
    cfg = Config(Config.fromfile(CONFIGS / f'demo/{name}_digits.py').to_dict(), format_python_code=False)
    cfg.model.backbone.init_cfg = None
    cfg.update(work_dir=f'val_loss_{name}', log_level='ERROR', randomness=dict(seed=0), param_scheduler=[])
    cfg.train_cfg.update(max_iters=2, val_interval=1)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    runner = PortableRunner.from_cfg(cfg)
    hook = ValLossHook()
    runner.register_hook(hook)
    runner.train()
    found = {split: losses(runner, split) for split in ('train/', 'val/val/')}
    assert terms | {'loss'} <= found['train/'].keys() == found['val/val/'].keys()
    hook.before_val_epoch(runner)
    assert not losses(runner, 'val/val/')
    hook.after_val_epoch(runner, {})
    assert losses(runner, 'val/val/') == found['val/val/']
    next(runner.model.backbone.parameters()).data += 1
    hook.before_val_epoch(runner)
    hook.after_val_epoch(runner, {})
    assert losses(runner, 'val/val/') != found['val/val/']


def losses(runner: PortableRunner, prefix: str) -> dict[str, float]:
    """The newest losses that MMEngine keeps under a prefix."""
    kept = runner.message_hub.log_scalars
    return {key.removeprefix(prefix): kept[key].current() for key in kept if key.startswith(prefix) and 'loss' in key}


def test_marks_of_inherited_configs_do_not_matter() -> None:
    """MMEngine writes the package into every dict that a config inherits from it."""
    marked = dict(SAMPLER, _scope_='mmcv_custom')
    hook = ValLossHook(dataloader=dict(sampler=marked))
    runner = SimpleNamespace(val_loop=object(), seed=0, build_dataloader=lambda loader, seed: loader)
    hook.before_train(runner)
    assert hook.loader['sampler'] == SAMPLER
    with pytest.raises(UserError, match='shuffle'):
        ValLossHook(dataloader=dict(sampler=dict(marked, shuffle=True))).before_train(runner)
