"""What a user sees: the start screen, a terminal without noise, early progress, and notes on metrics."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.hooks import LoggerHook
from mmengine.structures import BaseDataElement
from torch import nn

from mmcv_custom.cli import start
from mmcv_custom.cli.start import describe_data, describe_model
from mmcv_custom.cli.terminal import LONGEST, QuietStream, without_noise
from mmcv_custom.engine import progress
from mmcv_custom.engine.progress import MetricNotesHook, ProgressHook
from tests.support import ROOT, Run

DETECTOR = ROOT / 'configs/demo/mask-rcnn_digits.py'
UNCHECKED = '--skip-data-check'  # whose lines have tests of their own
SHORT = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2']
RECORD = '11/25 18:55:29 - mmengine - \x1b[4m\x1b[37mINFO\x1b[0m - '


# The tools.


@pytest.fixture(scope='module')
def quiet(run: Run) -> str:
    return run(ROOT / 'tools/train.py', DETECTOR, '--work-dir', 'quiet', UNCHECKED, '--cfg-options', *SHORT).stdout


def entries(screen: str) -> dict[str, str]:
    """The screen's entries by name."""
    return dict(re.findall(r'^([a-z ]+?)  +(\S.*)$', re.sub(r'\n {6,}', ' ', screen), re.MULTILINE))


def test_a_training_starts_with_one_screen(quiet: str, workplace: Path) -> None:
    assert len(quiet.splitlines()) < 60
    shown = entries(quiet)
    assert shown['model'] == 'MaskRCNN with InternImage, 3.0 M parameters'
    assert shown['train'] == '8 images, 54 objects (0: 9, 1: 5, 2: 5, 3: 3, 4: 6, 5: 9, 6: 6, 7: 3, 8: 4, 9: 4)'
    assert shown['val'].startswith('3 images, 20 objects (0: 3, 1: 3, 2: 3, 3: 0,')
    assert shown['device'] == 'CPU, 1 process, float32'
    assert shown['batch'] == '4 images (4 per process x 1 process x 1 accumulated step)'
    assert shown['learning rate'] == '0.003 (AdamW)'
    assert shown['schedule'] == '2 steps, evaluation every 2'
    assert shown['weights'] == 'random'
    assert shown['results'] == str(workplace / 'quiet')
    log = workplace / 'quiet' / shown['log'].partition(' ')[0]
    assert 'System environment:' in log.read_text() and 'Config:\n' in log.read_text()
    assert shown['model'] in log.read_text()


def test_the_terminal_shows_progress_and_metrics_but_no_noise(quiet: str) -> None:
    for noise in ('System environment', 'Config:', 'Hooks will be', 'parameter groups', 'index created', 'FileClient'):
        assert noise not in quiet
    assert quiet.count('Iter(train) [1/2]') == quiet.count('Iter(train) [2/2]') == 1  # an epoch has two steps
    assert 'Average Precision' in quiet and re.search(r'Iter\(val\) \[1/1\].*coco/segm_mAP: ', quiet)
    assert quiet.count('means not defined') == 1


@pytest.mark.slow
def test_debug_shows_everything(run: Run) -> None:
    options = ['--work-dir', 'loud', '--debug', UNCHECKED, '--cfg-options', *SHORT, 'train_cfg.max_iters=1']
    printed = run(ROOT / 'tools/train.py', DETECTOR, *options).stdout
    for noise in ('System environment:', 'Config:\n', 'Hooks will be executed', 'parameter groups', 'index created!'):
        assert noise in printed
    assert len(printed.splitlines()) > 500
    assert entries(printed)['schedule'] == '1 steps, evaluation every 2'


@pytest.mark.slow
def test_a_test_and_a_resumed_training_name_their_weights(run: Run, quiet: str, workplace: Path) -> None:
    checkpoint = workplace / 'quiet' / 'iter_2.pth'
    printed = run(ROOT / 'tools/test.py', DETECTOR, checkpoint, '--work-dir', 'tested', UNCHECKED).stdout
    shown = entries(printed)
    assert shown['weights'] == f'100.0% of MaskRCNN from {checkpoint}'
    assert 'batch' not in shown and shown['test'].startswith('3 images, 20 objects')
    options = [UNCHECKED, '--resume', str(checkpoint), '--amp', '--cfg-options', 'train_cfg.max_iters=3']
    options += ['optim_wrapper.accumulative_counts=2']
    printed = run(ROOT / 'tools/train.py', DETECTOR, '--work-dir', 'resumed', *options).stdout
    shown = entries(printed)
    assert shown['weights'] == f'resumed after 2 steps: 100.0% of MaskRCNN from {checkpoint}'
    assert shown['device'] == 'CPU, 1 process, bfloat16'
    assert shown['batch'] == '8 images (4 per process x 1 process x 2 accumulated steps)'


@pytest.mark.slow
def test_only_the_main_process_prints(run: Run, free_port: int) -> None:
    launch = ['-m', 'torch.distributed.run', '--nproc-per-node', '2', '--master-port', str(free_port)]
    options = [UNCHECKED, '--launcher', 'pytorch', '--work-dir', 'two', '--cfg-options', 'train_cfg.max_iters=1']
    printed = run(*launch, ROOT / 'tools/train.py', DETECTOR, *options, PYTHONWARNINGS='default').stdout
    assert printed.count('MaskRCNN with InternImage') == printed.count('Iter(train) [1/1]') == 1
    assert entries(printed)['batch'] == '8 images (4 per process x 2 processes x 1 accumulated step)'


# The screen's parts.


class Objects(BaseDataset):
    """Images that hold objects of the labels in each of ``images``; a negative label -1 - n is an ignored n."""

    def __init__(self, images: Sequence[Sequence[int]], classes: int, **options: Any) -> None:
        self.images = images
        super().__init__(metainfo=dict(classes=tuple(f'c{label}' for label in range(classes))), **options)

    def load_data_list(self) -> list[dict]:
        return [
            dict(instances=[dict(bbox_label=max(label, -1 - label), ignore_flag=int(label < 0)) for label in labels])
            for labels in self.images
        ]

    def get_cat_ids(self, idx: int) -> list[int]:
        return [item['bbox_label'] for item in self.get_data_info(idx)['instances']]


@pytest.mark.parametrize('serialized', [True, False])
def test_objects_are_counted_per_class(serialized: bool) -> None:
    dataset = Objects([[0, 0, 2], [], [2, -1]], 3, serialize_data=serialized)
    assert describe_data(dataset) == '3 images, 4 objects and 1 ignored (c0: 2, c1: 0, c2: 2)'


def test_wrappers_are_looked_through() -> None:
    one, two = Objects([[0], [1]], 2), Objects([[1, 1]], 2)
    assert describe_data(RepeatDataset(one, 3)) == '2 images (6 per epoch), 2 objects (c0: 1, c1: 1)'
    assert describe_data(RepeatDataset(dict(type=ConcatDataset, datasets=[one, two]), 2)) == (
        '3 images (6 per epoch), 4 objects (c0: 1, c1: 3)'
    )
    assert describe_data(ClassBalancedDataset(one, 0.4)) == '2 images, 2 objects (c0: 1, c1: 1)'
    mix = SimpleNamespace(dataset=one)  # as mmdet's MultiImageMixDataset
    assert describe_data(type('Mix', (SimpleNamespace,), {'__len__': lambda self: 2})(**vars(mix))).startswith('2 imag')


def test_of_many_classes_the_extremes_are_shown() -> None:
    labels = [label for label in range(30) for _ in range(label)]  # class n has n objects
    shown = describe_data(Objects([labels], 33))
    assert '33 classes; most c29: 29, c28: 28, c27: 27, c26: 26, c25: 25; ' in shown
    assert 'fewest c5: 5, c4: 4, c3: 3, c2: 2, c1: 1; 4 without an object (c0, c30, c31, c32)' in shown
    assert 'c15' not in shown


def test_objects_of_many_images_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, 'SAMPLE', 100)
    dataset = Objects([[0, 1]] * 250, 2)
    assert describe_data(dataset) == '250 images, about 504 objects, in every 3th image (c0: 84, c1: 84)'


@pytest.mark.parametrize('dataset', [[1, 2, 3], SimpleNamespace])
def test_datasets_without_objects(dataset: Any) -> None:
    if dataset is SimpleNamespace:

        class Masks(BaseDataset):
            def load_data_list(self) -> list[dict]:
                return [dict(seg_map_path='m.png')] * 3

        assert describe_data(Masks(metainfo=dict(classes=('a', 'b')))) == '3 images, 2 classes'
    else:
        assert describe_data(dataset) == '3 images'


def test_frozen_parameters_are_told() -> None:
    model = nn.Sequential(nn.Linear(9, 1), nn.Linear(9, 1))
    assert describe_model(model) == 'Sequential, 20 parameters'
    model[0].requires_grad_(False)
    assert describe_model(model) == 'Sequential, 20 parameters, 10 of them trained'


# The terminal.


@pytest.mark.parametrize(
    'text',
    [
        f'{RECORD}Config:\na = 1\n',
        f'{RECORD}\n----\nSystem environment:\n    Python: 3\n',
        f'{RECORD}"FileClient" will be deprecated in future.\n',
        'Done (t=0.01s)\n',
        'index created!\n',
    ],
)
def test_noise_is_dropped(text: str) -> None:
    assert without_noise(text) == ''


@pytest.mark.parametrize(
    'text',
    [
        f'{RECORD}Iter(train) [1/2]  loss: 1\n',
        f'{RECORD}my own line: Config:\n',
        'Config:\n',
        'Done (t=0.01s) by me\n',
        ' Average Precision  (AP) @[ IoU=0.50:0.95 ] = 0.1\n',
        'x' * 9999 + '\n',
    ],
)
def test_everything_else_passes(text: str) -> None:
    assert without_noise(text) == text


@pytest.mark.parametrize('header', ['', RECORD])
def test_lists_of_tensors_are_shortened(header: str) -> None:
    text = f'{header}The model and loaded state dict do not match exactly\n\nunexpected key: {"a.weight, " * 999}\n'
    shown = without_noise(text)
    assert shown.startswith(text[: len(header) + LONGEST]) and shown.endswith(' ... (--debug prints all of it)\n')
    assert without_noise(text[: len(header) + LONGEST]) == text[: len(header) + LONGEST]


def test_lines_come_in_parts_and_in_order() -> None:
    terminal = io.StringIO()
    stream = QuietStream(terminal)
    print('creating', 'index...', file=stream)  # print writes words, spaces and the end apart
    print('half', end='', file=stream, flush=True)
    assert terminal.getvalue() == 'half'
    print(' a line', file=stream)
    print('index created!\nand more', file=stream)
    assert terminal.getvalue() == 'half a line\nindex created!\nand more\n'
    assert not stream.isatty()


# Progress and notes.


class Runner:
    """What the hooks need of a runner: it notes what is logged."""

    def __init__(self, *hooks: Any) -> None:
        self.hooks = hooks
        self.train_dataloader = range(1000)
        self.lines: list[str] = []
        self.logger = SimpleNamespace(info=self.lines.append)
        self.log_processor = SimpleNamespace(
            get_log_after_iter=lambda runner, step, mode: ({}, f'{mode} {step + 1}'),
        )


def steps_logged(monkeypatch: pytest.MonkeyPatch, seconds: float, interval: int, mode: str) -> list[str]:
    """The lines of ProgressHook in 100 steps that take some seconds each, with LoggerHook's interval."""
    clock = [1000.0]
    monkeypatch.setattr(progress.time, 'monotonic', lambda: clock[0])
    hook = ProgressHook()
    runner = Runner(hook, LoggerHook(interval=interval))
    getattr(hook, f'before_{mode}_epoch')(runner)
    for step in range(100):
        clock[0] += seconds
        getattr(hook, f'after_{mode}_iter')(runner, batch_idx=step)
    return runner.lines


@pytest.mark.parametrize(
    ('seconds', 'interval', 'mode', 'lines'),
    [
        (0.1, 25, 'train', ['train 1']),
        (0.1, 1, 'train', []),  # LoggerHook logs every step
        (50, 25, 'train', [f'train {step}' for step in (1, *range(3, 25, 2))]),
        (0.1, 200, 'val', ['val 100']),
        (0.05, 200, 'val', []),
        (4, 50, 'test', ['test 3', 'test 18', 'test 33', 'test 48', 'test 65', 'test 80', 'test 95']),
    ],
)
def test_nobody_waits_long_for_a_line(
    monkeypatch: pytest.MonkeyPatch, seconds: float, interval: int, mode: str, lines: list[str]
) -> None:
    shown = steps_logged(monkeypatch, seconds, interval, mode)
    assert shown[: len(lines)] == lines and bool(shown) == bool(lines)


def test_a_line_at_the_end_of_an_epoch_is_enough() -> None:
    hook = ProgressHook()
    runner = Runner(hook, LoggerHook(interval=25))
    runner.train_dataloader = range(1)
    hook.after_train_iter(runner, 0)
    assert runner.lines == []


def test_the_training_after_an_evaluation_is_not_a_new_start(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(progress.time, 'monotonic', lambda: clock[0])
    hook = ProgressHook()
    runner = Runner(hook, LoggerHook(interval=25))
    hook.after_train_iter(runner, 0)
    clock[0] += 500
    hook.before_val_epoch(runner)
    clock[0] += 500
    hook.after_val_epoch(runner)
    hook.after_train_iter(runner, 1)
    assert runner.lines == ['train 1']


def evaluate(detections: Sequence[int], metrics: dict[str, float], **fields: Any) -> list[str]:
    hook, runner = MetricNotesHook(), Runner()
    hook.before_val_epoch(runner)
    for count in detections:
        found = BaseDataElement(pred_instances=torch.zeros(count, 4)) if not fields else BaseDataElement(**fields)
        hook.after_val_iter(runner, 0, None, [found])
    hook.after_val_epoch(runner, metrics)
    return runner.lines


def test_an_evaluation_without_detections_is_told() -> None:
    assert [line[:34] for line in evaluate([0, 0], {})] == ['Nothing was detected in 2 images, ']
    assert evaluate([0, 1], {'mAP': 0.0}) == []
    assert evaluate([0, 0], {'mIoU': 0.0}, pred_sem_seg=torch.zeros(1)) == []  # segmentation


def test_undefined_metrics_are_explained() -> None:
    (line,) = evaluate([1], {'coco/bbox_mAP': 0.1, 'coco/bbox_mAP_l': -1.0, 'coco/bbox_mAP_s': -1.0, 'x': 'text'})
    assert line.startswith('-1 (coco/bbox_mAP_l, coco/bbox_mAP_s) means not defined')
    assert evaluate([1], {'coco/bbox_mAP': 0.1, 'loss': -0.5}) == []


def test_importing_changes_nothing(run: Run) -> None:
    program = """
import sys, warnings
import mmcv_custom.cli.terminal
print(type(sys.stdout).__name__, *warnings.filters)
mmcv_custom.cli.terminal.quiet_terminal()
print(type(sys.stdout).__name__, *warnings.filters)
"""
    imported, quiet = run('-c', program).stdout.splitlines()
    assert imported.startswith('TextIOWrapper ') and 'faster_coco_eval' not in imported
    assert quiet.startswith('QuietStream ') and 'faster_coco_eval' in quiet
