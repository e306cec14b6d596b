"""Evaluate an official checkpoint of the model zoo, and compare with the figures published for it.

python tools/evaluate_zoo.py mask-rcnn_internimage-t_fpn_1x_coco --data-root /data/coco

Downloads the checkpoint into the cache of torch.hub, reads it safely, converts it, requires it to fill the whole model,
evaluates it on the test data of its config, and writes report.json and report.md. No digests of the files were
published; the report states that of the file that was used. `python -m mmcv_custom.zoo list`
names the models.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.fileio import dump

from mmcv_custom import completeness, zoo  # noqa: F401  (the former registers its hook)
from mmcv_custom.checkpoint import download
from mmcv_custom.cli import (
    build_runner,
    check_data,
    checkpoint_errors_in_one_line,
    existing_file,
    fail,
    load_config,
    use_tta,
)
from mmcv_custom.runner import LAUNCHERS

# Published figures are rounded to 0.1, and so are mmdet's; the rest is for other versions of image and box operations.
TOLERANCE = 0.2


class Comparison(NamedTuple):
    """A metric in percent: as measured, as published, and whether they agree. ``None`` where there is no such thing."""

    metric: str
    measured: float | None
    published: float | None
    agrees: bool | None


def main() -> None:
    args = parse_arguments()
    try:
        model = zoo.find(args.name)
    except zoo.UnknownModelError as problem:
        fail(str(problem))
    args.config = str(model.path)
    args.work_dir = args.work_dir or f'work_dirs/zoo/{model.name}'
    cfg = load_config(args)
    move_data(cfg, args.data_root)
    check_data(cfg, 'test')
    if args.tta:
        use_tta(cfg)
    with checkpoint_errors_in_one_line():
        file = checkpoint_file(model, args.checkpoint)
        cfg.load_from = str(file)
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='CompleteCheckpointHook')]
        runner = build_runner(cfg)
        start = time.monotonic()
        metrics = runner.test()
    comparisons = list(compare(model, metrics, args.tta, args.tolerance))
    if is_main_process():
        report = {
            'model': model.name,
            'official_config': model.official,
            'origin': 'converted',
            'checkpoint': {'url': model.url, **fingerprint(file)},
            'data_root': args.data_root,
            'images': len(runner.test_loop.dataloader.dataset),
            'tta': args.tta,
            'tolerance': args.tolerance,
            'comparisons': [comparison._asdict() for comparison in comparisons],
            'metrics': metrics,
            'cfg_options': args.cfg_options or {},
            'environment': environment(model),
            'finished': datetime.now(timezone.utc).isoformat(timespec='seconds'),
            'minutes': round((time.monotonic() - start) / 60, 1),
        }
        write(report, Path(args.work_dir))
    if all(comparison.agrees is None for comparison in comparisons):
        fail(f'no figure of {model.name} was published to compare with {"with" if args.tta else "without"} --tta')
    sys.exit(any(comparison.agrees is False for comparison in comparisons))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Evaluate an official checkpoint and compare with its published figures.'
    )
    parser.add_argument('name', help='of the model, or of its official config')
    parser.add_argument('--data-root', required=True, metavar='D', help='folder of the data set, in place of data_root')
    parser.add_argument('--checkpoint', metavar='FILE', help='a local file instead of the download')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation, for the figures published with it')
    parser.add_argument(
        '--tolerance', type=float, default=TOLERANCE, help='difference in percentage points that is none (%(default)s)'
    )
    parser.add_argument('--work-dir', help='folder of the log and the report (default: work_dirs/zoo/<name>)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='overrides')
    parser.add_argument('--launcher', choices=['none', *LAUNCHERS], default='none', help='what started this process')
    return parser.parse_args()


def move_data(cfg: Config, data_root: str) -> None:
    """Makes the test data set and its evaluator read below another folder than the config's ``data_root``."""
    dataset = cfg.test_dataloader.dataset
    while 'data_root' not in dataset:  # of a wrapper
        dataset = dataset.dataset
    old = dataset.data_root.rstrip('/')
    cfg.test_dataloader = _moved(cfg.test_dataloader, old, data_root.rstrip('/'))
    cfg.test_evaluator = _moved(cfg.test_evaluator, old, data_root.rstrip('/'))


def _moved(node: Any, old: str, new: str) -> Any:
    if isinstance(node, Mapping):
        return {key: _moved(value, old, new) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_moved(value, old, new) for value in node)
    is_below = isinstance(node, str) and (node == old or node.startswith(old + '/'))
    return new + node[len(old) :] if is_below else node


def checkpoint_file(model: zoo.Model, given: str | None) -> Path:
    """The local checkpoint, downloaded if none is given."""
    if given:
        return Path(existing_file(given, 'checkpoint'))
    if not model.url:
        fail(f'no checkpoint of {model.name} was published; name one by --checkpoint')
    return download(model.url)


def compare(model: zoo.Model, metrics: Mapping[str, float], tta: bool, tolerance: float) -> Iterator[Comparison]:
    """What was measured beside what was published, metric by metric."""
    dataset = zoo.datasets()[model.dataset]
    published = {
        metric: value for metric, value in model.results.get('published', {}).items() if ('(TTA' in metric) == tta
    }
    names = {metric + zoo.TTA * tta: key for metric, key in dataset.metrics.items()}
    for metric in dict.fromkeys([*published, *names]):
        value = metrics.get(names.get(metric, ''))
        measured = None if value is None else round(value * dataset.scale, 2)
        expected = published.get(metric)
        if measured is not None or expected is not None:
            both = measured is not None and expected is not None
            # The published figures have one or two decimals: a difference of exactly the tolerance is within.
            agrees = abs(measured - expected) <= tolerance + 1e-9 if both else None
            yield Comparison(metric, measured, expected, agrees)


def fingerprint(file: Path) -> dict[str, Any]:
    """What identifies the file that was evaluated."""
    digest = hashlib.sha256()
    with file.open('rb') as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return {'file': str(file), 'bytes': file.stat().st_size, 'sha256': digest.hexdigest()}


def environment(model: zoo.Model) -> dict[str, str]:
    """Device and versions, by the names of the installed distributions."""
    distributions = packages_distributions()
    names = [distributions[module][0] for module in ('mmengine', 'mmcv', model.scope)]
    device = torch.cuda.get_device_name() if get_device() == 'cuda' else get_device()
    return {'device': device, 'torch': torch.__version__, **{name: version(name) for name in names}}


def write(report: dict[str, Any], folder: Path) -> None:
    """Writes both forms of the report, and prints the readable one."""
    dump(report, folder / 'report.json', indent=2)
    text = readable(report)
    (folder / 'report.md').write_text(text)
    print(text)


def readable(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    verdicts = {True: 'agrees', False: f'**differs by more than {report["tolerance"]}**', None: ''}
    rows = [
        f'| {metric} | {_number(measured)} | {_number(published)} | {verdicts[agrees]} |'
        for metric, measured, published, agrees in (comparison.values() for comparison in report['comparisons'])
    ]
    checkpoint = report['checkpoint']
    facts = {
        'checkpoint': f'{checkpoint["file"]}, {checkpoint["bytes"]} bytes, sha256 {checkpoint["sha256"]}',
        'data': f'{report["images"]} images of {report["data_root"]}',
        'overrides': ', '.join(f'{key}={value}' for key, value in report['cfg_options'].items()),
        'ran on': ', '.join(f'{name} {value}' for name, value in report['environment'].items()),
        'finished': f'{report["finished"]}, after {report["minutes"]} minutes',
    }
    lines = [f'- {key}: {value}' for key, value in facts.items() if value]
    header = ['| metric, % | measured | published | |', '| --- | --- | --- | --- |']
    return '\n'.join([f'# {report["model"]}\n', *header, *rows, '', *lines, ''])


def _number(value: float | None) -> str:
    return '' if value is None else str(value)


if __name__ == '__main__':
    main()
