"""tools/new_config.py --from: every key of an old config is carried over or listed."""

from __future__ import annotations

import functools
import operator
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmcv_custom.errors import UserError
from mmcv_custom.new_config import find_base
from mmcv_custom.old_configs import Translation, read_old_config, translate
from tests.tools.old_sources import MASK_RCNN, UPERNET
from tests.tools.test_old_configs import convert

BASES = {
    MASK_RCNN: 'mask-rcnn_internimage-t_fpn_1x_coco',
    UPERNET: 'internimage-s_upernet_8xb2-160k_ade20k-512x512',
}


@pytest.fixture(scope='module')
def bases() -> dict[str, Config]:
    return {source: find_base(name).cfg for source, name in BASES.items()}


def translated(source: str, added: str, cfg: Config, place: Path) -> Translation:
    (place / 'old.py').write_text(source + added)
    return translate(read_old_config(str(place / 'old.py')), cfg)


def at(settings: dict[str, Any], key: str) -> Any:
    return functools.reduce(operator.getitem, key.split('.'), settings)


# What is added to an old config, and what its notes say of it.
LISTED = [
    ("evaluation['start'] = 3", 'evaluation.start=3'),
    ("evaluation['save_best'] = 'my_score'", "evaluation.save_best='my_score'"),
    ("evaluation['by_epoch'] = False", 'evaluation.by_epoch=False'),
    ("log_config['hooks'] += [dict(type='TensorboardLoggerHook')]", "log_config.hooks='TensorboardLoggerHook'"),
    ("log_config['hooks'] = [dict(type='TextLoggerHook', ignore_last=False)]", "log_config.hooks='TextLoggerHook'"),
    ("log_config['interval'] = 0", 'log_config.interval=0'),
    ("checkpoint_config['out_dir'] = 'there'", "checkpoint_config.out_dir='there'"),
    ("checkpoint_config['by_epoch'] = False", 'checkpoint_config.interval=1'),
    ("fp16 = dict(loss_scale='dynamic')", "fp16.loss_scale='dynamic'"),
    ("optimizer_config['use_fp16'] = True", 'optimizer_config.use_fp16=True'),
    ("optimizer_config['type'] = 'MyHook'", "optimizer_config.type='MyHook'"),
    ("lr_config['gamma_2'] = 3", 'lr_config.gamma_2'),
    ("runner['type'] = 'MyRunner'", "runner.type='MyRunner'"),
    ("runner['meta'] = 1", 'runner.meta=1'),
    ("img_norm_cfg['eps'] = 0.1", 'img_norm_cfg.eps=0.1'),
    ('auto_scale_lr = dict(enable=True, base_batch_size=16)', 'auto_scale_lr.enable=True'),
    ("workflow = [('train', 1), ('val', 1)]", "workflow=[('train', 1), ('val', 1)]"),
    ("data['train_dataloader'] = dict(drop_last=True)", 'data.train_dataloader.drop_last=True'),
    ("data['val_dataloader'] = dict(samples_per_gpu=9)", 'data.val_dataloader.samples_per_gpu=9'),
    ("data['test']['samples_per_gpu'] = 9", 'data.test.samples_per_gpu'),
    ("data['pin_memory'] = True", 'data.pin_memory=True'),
]
# What is added, where it stands in the new config's settings, and its value there.
CARRIED: list[tuple[str, str, Any]] = [
    ("data['train_dataloader'] = dict(workers_per_gpu=5)", 'train_dataloader.num_workers', 5),
    (
        'data.update(workers_per_gpu=2, persistent_workers=False)',
        'train_dataloader.persistent_workers',
        False,
    ),
    ("evaluation['classwise'] = True", 'val_evaluator.classwise', True),
    ("evaluation['save_best'] = 'bbox_mAP'", 'default_hooks.checkpoint.save_best', 'coco/bbox_mAP'),
    ("checkpoint_config['save_optimizer'] = False", 'default_hooks.checkpoint.save_optimizer', False),
    ("checkpoint_config['max_keep_ckpts'] = -1", 'default_hooks.checkpoint.max_keep_ckpts', -1),
    ("optimizer_config['cumulative_iters'] = 4", 'optim_wrapper.accumulative_counts', 4),
]
# What says nothing that a run here does not have.
USUAL = [
    "evaluation['pre_eval'] = True",
    "evaluation['save_best'] = 'auto'",
    "evaluation['classwise'] = False",
    'checkpoint_config.update(by_epoch=True, save_optimizer=True)',
    "log_config['hooks'] = [dict(type='TextLoggerHook', by_epoch=True)]",
    "runner['type'] = 'EpochBasedRunner'",
    "workflow = [('train', 1)]",
    "data['val_dataloader'] = dict(samples_per_gpu=1, shuffle=False)",
    "optimizer_config['type'] = 'OptimizerHook'",
]


@pytest.mark.parametrize(('added', 'note'), LISTED)
def test_what_is_not_carried_over_is_listed(added: str, note: str, bases: dict[str, Config], tmp_path: Path) -> None:
    before = translated(MASK_RCNN, '', bases[MASK_RCNN], tmp_path).notes
    after = translated(MASK_RCNN, added, bases[MASK_RCNN], tmp_path).notes
    assert note in after and note not in before


@pytest.mark.parametrize(('added', 'key', 'value'), CARRIED)
def test_what_is_carried_over_is_not_listed(
    added: str, key: str, value: Any, bases: dict[str, Config], tmp_path: Path
) -> None:
    before = translated(MASK_RCNN, '', bases[MASK_RCNN], tmp_path)
    after = translated(MASK_RCNN, added, bases[MASK_RCNN], tmp_path)
    assert after.notes == before.notes
    assert at(after.settings, key) == value
    assert before.settings != after.settings


@pytest.mark.parametrize('added', USUAL)
def test_what_is_usual_is_not_listed(added: str, bases: dict[str, Config], tmp_path: Path) -> None:
    before = translated(MASK_RCNN, '', bases[MASK_RCNN], tmp_path)
    after = translated(MASK_RCNN, added, bases[MASK_RCNN], tmp_path)
    assert after.notes == before.notes and after.settings.get('val_evaluator') == before.settings.get('val_evaluator')


def test_the_training_loader_decides_the_batch(bases: dict[str, Config], tmp_path: Path) -> None:
    added = "data['train_dataloader'] = dict(samples_per_gpu=7)"
    assert translated(MASK_RCNN, '', bases[MASK_RCNN], tmp_path).batch_size == 4
    assert translated(MASK_RCNN, added, bases[MASK_RCNN], tmp_path).batch_size == 7


def test_a_segmentor(bases: dict[str, Config], tmp_path: Path) -> None:
    added = (
        "evaluation.update(save_best='mIoU', pre_eval=True, by_epoch=False)\n"
        'checkpoint_config = dict(by_epoch=False, interval=100)\n'
        "log_config = dict(interval=50, hooks=[dict(type='TextLoggerHook', by_epoch=False)])\n"
    )
    found = translated(UPERNET, added, bases[UPERNET], tmp_path)
    assert found.notes == translated(UPERNET, '', bases[UPERNET], tmp_path).notes
    assert found.settings['default_hooks']['checkpoint'] == dict(interval=100)
    other = translated(UPERNET, "evaluation['metric'] = ['mIoU', 'mFscore']", bases[UPERNET], tmp_path)
    assert "evaluation.metric=['mIoU', 'mFscore']" in other.notes


@pytest.mark.parametrize('key', ['checkpoint_config', 'log_config', 'fp16', 'auto_scale_lr'])
def test_a_part_that_is_no_dict(key: str, bases: dict[str, Config], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f'{key} must be a dict, got 3'):
        translated(MASK_RCNN, f'{key} = 3', bases[MASK_RCNN], tmp_path)
    with pytest.raises(UserError, match='data.train_dataloader must be a dict, got 3'):
        translated(MASK_RCNN, "data['train_dataloader'] = 3", bases[MASK_RCNN], tmp_path)


def test_the_tool_lists_it(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    added = "data['train_dataloader'] = dict(samples_per_gpu=3)\nevaluation.update(classwise=True, start=1)\n"
    cfg = convert(monkeypatch, MASK_RCNN + added)
    assert '- not carried over: evaluation.start=1\n' in capsys.readouterr().out
    assert cfg.train_dataloader.batch_size == 3 and cfg.test_evaluator.classwise is True
