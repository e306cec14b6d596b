"""Evaluate an official checkpoint of the model zoo, and compare with the figures published for it.

python tools/zoo/evaluate.py mask-rcnn_internimage-t_fpn_1x_coco --data-root /data/coco

Downloads the checkpoint into the cache of torch.hub and runs tools/test.py on it, which gets all further arguments.
Exits with 0 if all published figures agree, with 1 otherwise. `mm-internimage list` names the models.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.fileio import load

from mmcv_custom import zoo
from mmcv_custom.checkpoint import download
from mmcv_custom.cli import (
    Overrides,
    Parser,
    check_paths,
    existing_file,
    fail,
    make_folder,
    read_config,
    table,
    user_errors_in_one_line,
)
from mmcv_custom.engine.runner import LAUNCHERS

TEST = Path(__file__).parents[1] / 'test.py'
# Published figures are rounded to 0.1, and so are mmdet's; the rest is for other versions of image and box operations.
TOLERANCE = 0.2


class Comparison(NamedTuple):
    """A metric in percent as measured and as published, and whether the two agree; ``None`` where one is missing."""

    metric: str
    measured: float | None
    published: float | None
    agrees: bool | None


def main() -> None:
    parser = Parser(
        description='Evaluate an official checkpoint and compare with its published figures. '
        'Further arguments go to tools/test.py.',
        allow_abbrev=False,
    )
    parser.add_argument('name', help='of the model, or of its official config or checkpoint')
    parser.add_argument('--data-root', required=True, metavar='D', help='folder of the dataset, in place of data_root')
    parser.add_argument('--checkpoint', metavar='FILE', help='a local file instead of the download')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation, for the figures published with it')
    parser.add_argument(
        '--tolerance', type=float, default=TOLERANCE, help='allowed difference in percentage points (%(default)s)'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=Overrides, metavar='KEY=VALUE', help='overrides of the config'
    )
    parser.add_argument('--work-dir', type=Path, help='folder of the logs (default: work_dirs/zoo/<name>)')
    parser.add_argument('--launcher', choices=['none', *LAUNCHERS], default='none', help='what started this process')
    args, options = parser.parse_known_args()
    if not args.tolerance >= 0:  # nan is not
        fail(f'--tolerance must be at least 0, got {args.tolerance}')
    if args.checkpoint is not None:
        existing_file(args.checkpoint, 'checkpoint')
    try:
        model = zoo.find(args.name)
    except zoo.UnknownModelError as problem:
        fail(str(problem))
    work_dir = args.work_dir or Path('work_dirs/zoo', model.name)
    cfg = read_config(str(model.config), args.cfg_options)
    move_data(cfg, args.data_root)
    check_paths(cfg, 'test')  # before the download
    make_folder(str(work_dir), '--work-dir')
    with user_errors_in_one_line():
        checkpoint = args.checkpoint or download(checkpoint_url(model))

    with TemporaryDirectory() as folder:  # one for each process of a launcher
        config = Path(folder, model.config.name)
        cfg.dump(config)
        options += ['--work-dir', str(work_dir), '--launcher', args.launcher, *(['--tta'] if args.tta else [])]
        if subprocess.run([sys.executable, TEST, config, checkpoint, *options]).returncode:
            sys.exit(1)  # test.py has said why
    if args.launcher != 'none' and os.environ[LAUNCHERS[args.launcher][0]] != '0':
        return  # only the first process has the metrics

    # MMEngine writes <start>/<start>.json; other files may be a user's.
    metrics = load(max(path for path in work_dir.glob('*/*.json') if path.stem == path.parent.name))
    comparisons = list(compare(model, metrics, args.tta, args.tolerance))
    verdicts = {True: 'agrees', False: f'differs by more than {args.tolerance}', None: ''}
    rows = [('' if cell is None else cell for cell in (*row[:3], verdicts[row.agrees])) for row in comparisons]
    print(f'{checkpoint}, sha256 {sha256(checkpoint)}')
    print(table([('metric, %', 'measured', 'published', ''), *rows]))
    if all(row.agrees is None for row in comparisons):
        fail(f'no figure of {model.name} was published to compare with {"with" if args.tta else "without"} --tta')
    sys.exit(any(row.agrees is False for row in comparisons))


def sha256(file: str | Path) -> str:
    """The digest that tells which file was evaluated; none were published."""
    digest = hashlib.sha256()
    with open(file, 'rb') as content:
        while block := content.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def move_data(cfg: Config, data_root: str) -> None:
    """Makes the test dataset and its evaluator read below another folder than the config's ``data_root``."""
    dataset = cfg.test_dataloader.dataset
    while 'data_root' not in dataset:  # a wrapper
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


def checkpoint_url(model: zoo.Model) -> str:
    """Where the official checkpoint is."""
    return model.checkpoint or fail(f'no checkpoint of {model.name} was published; name one by --checkpoint')


def compare(model: zoo.Model, metrics: Mapping[str, float], tta: bool, tolerance: float) -> Iterator[Comparison]:
    """The measured figures beside the published ones, metric by metric."""
    published = {
        metric: value for metric, value in model.results.get('published', {}).items() if ('(TTA' in metric) == tta
    }
    keys = {metric + ' (TTA)' * tta: key for metric, key in model.metadata.get('Metric Keys', {}).items()}
    factor = 100 if model.metadata.get('Metric Unit') == 'fraction' else 1
    for metric in dict.fromkeys([*published, *keys]):
        value = metrics.get(keys.get(metric, ''))
        measured = None if value is None else round(value * factor, 2)
        expected = published.get(metric)
        if measured is None and expected is None:
            continue
        # The published figures have one or two decimals: a difference of exactly the tolerance is within.
        agrees = None if None in (measured, expected) else abs(measured - expected) <= tolerance + 1e-9
        yield Comparison(metric, measured, expected, agrees)


if __name__ == '__main__':
    main()
