"""What MMEngine cannot build from a config gets one line that names the entry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mmcv_custom.engine.runner import PortableRunner
from tests.tools.helpers import DETECTOR, SEGMENTOR, Mistake
from tools import check_data, test, train
from tools.analysis_tools import get_flops


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        ('model.type=MaskRCN', "build model of .*: mmdet has no model called 'MaskRCN'; did you mean MaskRCNN"),
        (
            'model.roi_head.mask_head.num_conv=2',
            "build model.roi_head.mask_head of .*'num_conv'; did you mean num_convs",
        ),
        ('model.backbone.depth=[1,1]', "build model.backbone of .* unknown keyword 'depth'"),
        ('model.backbone.channels=abc', 'build model.backbone of .* channels must be even and positive .* got abc'),
        ('default_scope=mmdett', 'build visualizer of .* should default_scope be mmdet or mmseg'),
        ('runner_type=Fast', "build the runner of .* no runner called 'Fast'"),
        ('default_hooks.logger.type=Log', "build default_hooks.logger of .* no hook called 'Log'"),
        ('train_dataloader.batch_size=abc', 'build train_dataloader of .* got batch_size=abc'),
        ('optim_wrapper.optimizer.type=AdamX', "build optim_wrapper of .* no optimizer called 'AdamX'; did you mean"),
        ('optim_wrapper.optimizer.lr=nan', 'build optim_wrapper.optimizer of .* Invalid learning rate: nan'),
        ('optim_wrapper.type=Wrapper', "build optim_wrapper of .* no optim_wrapper called 'Wrapper'"),
        ('param_scheduler.0.type=LinLR', "build param_scheduler.0 of .* called 'LinLR'; did you mean LinearLR"),
        ('train_cfg.max_iter=3', "build train_cfg of .* 'max_iter'; did you mean max_iters"),
        ('val_dataloader.sampler.type=Sampler', "build val_dataloader.sampler of .* called 'Sampler'"),
        ('val_evaluator.metric=boxes', 'build val_evaluator of .* boxes'),
        ('randomness.sed=3', "build the runner of .* 'sed'"),
    ],
)
def test_what_cannot_be_built(mistake: Mistake, override: str, message: str) -> None:
    overrides = ['--cfg-options', 'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False']
    # MMEngine keeps the default scope by experiment and second: two tests may share one.
    overrides += ['train_cfg.max_iters=1', f'experiment_name={override.partition("=")[0]}']
    arguments = [DETECTOR, '--work-dir', 'work', '--skip-data-check', *overrides, override]
    assert re.search(message, mistake(train, *arguments, leaves=('work',)))


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        ('train_dataloader.dataset.type=Coco', "build train_dataloader.dataset of .* no dataset called 'Coco'"),
        ('train_dataloader.dataset.pipeline.2.scales=3', "build train_dataloader.dataset.pipeline.2 of .*'scales'"),
        ('val_dataloader.dataset.pipeline.1.scales=3', "build val_dataloader.dataset.pipeline.1 of .*'scales'"),
        # Two of a type: the part around them.
        ('train_dataloader.dataset.pipeline.1.type=Resize', "build train_dataloader.dataset of .*'with_bbox'"),
    ],
)
@pytest.mark.parametrize('check', [[], ['--skip-data-check']], ids=['by the data check', 'by the runner'])
def test_datasets_that_cannot_be_built(mistake: Mistake, check: list[str], override: str, message: str) -> None:
    overrides = ['train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False']
    overrides += ['train_cfg.max_iters=1', f'experiment_name={override.partition("=")[0]}{len(check)}', override]
    arguments = [DETECTOR, '--work-dir', 'work', *check, '--cfg-options', *overrides]
    assert re.search(message, mistake(train, *arguments, leaves=('work',)))


@pytest.mark.parametrize(
    ('program', 'override', 'message'),
    [
        (test, 'test_dataloader.dataset.pipeline.1.scales=3', "build test_dataloader.dataset.pipeline.1 of .*'scales'"),
        (check_data, 'test_dataloader.dataset.pipeline.1.scales=3', 'build test_dataloader.dataset.pipeline.1 of'),
        (get_flops, 'model.neck.num_out=3', "build model.neck of .*'num_out'; did you mean num_outs"),
    ],
)
def test_other_tools_name_the_part_too(mistake: Mistake, program: Any, override: str, message: str) -> None:
    """Also of the test data, which are often those of val."""
    weights = ['weights.pth', '--work-dir', 'work', '--skip-data-check'] if program is test else []
    text = mistake(program, DETECTOR, *weights, '--cfg-options', override, leaves=('work',))
    assert re.search(message, text)


def test_an_empty_dataset(mistake: Mistake) -> None:
    images = [
        f'train_dataloader.dataset.{key}=no_images' for key in ('data_prefix.img_path', 'data_prefix.seg_map_path')
    ]
    overrides = [*images, 'train_dataloader.dataset.data_root=.', 'model.backbone.init_cfg=None']
    text = mistake(train, SEGMENTOR, '--work-dir', 'work', '--cfg-options', *overrides, leaves=('work',))
    assert 'the data of' in text and '--skip-data-check' in text
    text = mistake(
        train, SEGMENTOR, '--work-dir', 'work', '--skip-data-check', '--cfg-options', *overrides, leaves=('work',)
    )
    assert 'build train_dataloader.dataset of' in text and 'the dataset is empty' in text


def test_debug_prints_the_traceback(cluttered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ['--cfg-options', 'model.type=MaskRCN']
    monkeypatch.setattr('sys.argv', ['train.py', DETECTOR, '--work-dir', 'work', '--debug', *overrides])
    with pytest.raises(KeyError, match='MaskRCN'):
        train.main()


@pytest.mark.parametrize('kind', [RuntimeError, KeyError, TypeError, OSError])
def test_our_own_bugs_keep_their_traceback(
    cluttered: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """An error within the run is no mistake in the config, whatever its type."""

    def broken(runner: PortableRunner) -> None:
        raise kind('a bug')

    monkeypatch.setattr(PortableRunner, 'train', broken)
    monkeypatch.setattr('sys.argv', ['train.py', DETECTOR, '--work-dir', 'work'])
    with pytest.raises(kind, match='a bug'):
        train.main()
