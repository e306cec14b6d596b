"""Train and evaluate a small Mask R-CNN and a small UperNet on this machine's CPU, and show what they learned.

python tools/demo/run.py [--dino]

Everything is written below the working directory: the dataset to data/digits, the rest to work_dirs/demo.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from digits import Parser, generate
from pictures import draw_curves, draw_sheet

ROOT = Path(__file__).resolve().parents[2]
DATA = Path('data/digits')  # where the demo's configs look
# The runner's log opens with hundreds of lines about the machine and the config. These are the ones to watch.
WORTH_SEEING = re.compile(r'Iter\((train|val|test)\)|loaded .* of InternImage|ERROR|error:')


def run(log: Path, *command: str | Path) -> float:
    """Run a Python program, show its progress and write its whole output to `log`; return the minutes it took."""
    log.parent.mkdir(parents=True, exist_ok=True)
    # One thread: a second one gains a quarter on an idle machine, and where the other core is busy both spin.
    # No GPU: the demo is made for CPUs, and mmcv is compiled for nothing else where there is no nvcc.
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    fixed = {'PYTHONPATH': python_path, 'PYTHONUNBUFFERED': '1', 'CUDA_VISIBLE_DEVICES': ''}
    environment = {'OMP_NUM_THREADS': '1', **os.environ, **fixed}
    start = time.monotonic()
    arguments = [sys.executable, *map(str, command)]
    print('$ python', *arguments[1:], flush=True)
    streams = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with log.open('w') as file, subprocess.Popen(arguments, env=environment, **streams) as program:
        for line in program.stdout or ():
            file.write(line)
            if WORTH_SEEING.search(line):
                print(line, end='', flush=True)
    if program.returncode:
        print(''.join(log.read_text().splitlines(keepends=True)[-30:]), file=sys.stderr)
        sys.exit(f'error: {command[0]} failed with exit code {program.returncode}; its output is in {log}')
    return (time.monotonic() - start) / 60


def train_and_test(
    config: str, work_dir: Path, options: Sequence[str], output: str = ''
) -> tuple[Path, dict[str, float], float]:
    """Train a config of configs/demo and evaluate it.

    Args:
        config: Its file name.
        work_dir: Output folder.
        options: Overrides of the config.
        output: The option of the config's metric that makes it write the predictions, to ``work_dir``/predictions.

    Returns:
        The last checkpoint, the metrics and the minutes.
    """
    path = ROOT / 'configs' / 'demo' / config
    overrides = ['--cfg-options', *options] if options else []
    minutes = run(work_dir / 'train.log', ROOT / 'tools/train.py', path, '--work-dir', work_dir, *overrides)
    checkpoint = work_dir / Path((work_dir / 'last_checkpoint').read_text()).name
    test_dir = work_dir / 'test'
    overrides = ['--cfg-options', f'test_evaluator.{output}={work_dir / "predictions"}'] if output else []
    minutes += run(work_dir / 'test.log', ROOT / 'tools/test.py', path, checkpoint, '--work-dir', test_dir, *overrides)
    metrics = json.loads(max(test_dir.glob('*/*.json')).read_text())
    return checkpoint, metrics, minutes


def table_row(name: str, metrics: dict[str, float], minutes: float) -> str:
    """A line of the table, blank where a model has no such metric."""
    columns = {'coco/bbox_mAP': 6, 'coco/bbox_mAP_50': 8, 'coco/segm_mAP': 7, 'mIoU': 5}
    cells = [f'{metrics[key]:{width}.3f}' if key in metrics else ' ' * width for key, width in columns.items()]
    return '  '.join([f'{name:12}', *cells, f'{minutes:7.1f}'])


def main() -> None:
    parser = Parser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('--work-dir', default='work_dirs/demo', help='output folder (%(default)s)')
    parser.add_argument('--images', type=int, nargs=2, default=(1500, 100), metavar=('TRAIN', 'VAL'))
    parser.add_argument('--iterations', type=int, help='of each training (default: as in the configs)')
    parser.add_argument('--dino', action='store_true', help='train and evaluate a small DINO too')
    args = parser.parse_args()
    if args.iterations is not None and args.iterations < 1:
        sys.exit(f'error: --iterations must be at least 1, got {args.iterations}')
    work_dir = Path(args.work_dir)
    if not args.work_dir or re.search(
        r"[\s,()\[\]'\"]", args.work_dir
    ):  # --cfg-options would read another path or a list
        sys.exit(
            f'error: --work-dir must name a folder without spaces, commas, brackets and quotes, got {args.work_dir!r}'
        )
    start = time.monotonic()

    print(f'generating {args.images[0]} training and {args.images[1]} validation images in {DATA}', flush=True)
    try:
        generate(DATA, *args.images)
        work_dir.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as problem:
        sys.exit(f'error: {problem}')
    options = []
    if args.iterations:
        options = [f'train_cfg.max_iters={args.iterations}', f'train_cfg.val_interval={args.iterations}']
    detector, segmentor = work_dir / 'mask-rcnn', work_dir / 'upernet'
    checkpoint, found, minutes = train_and_test('mask-rcnn_digits.py', detector, options, 'outfile_prefix')
    options.append(f'model.backbone.init_cfg.checkpoint={checkpoint}')
    _, labelled, more_minutes = train_and_test('upernet_digits.py', segmentor, options, 'output_dir')
    rows = [
        table_row('Mask R-CNN', found, minutes),
        table_row('UperNet', dict(mIoU=labelled['mIoU'] / 100), more_minutes),
    ]
    if args.dino:
        rows.append(table_row('DINO', *train_and_test('dino_digits.py', work_dir / 'dino', options)[1:]))

    curves, sheet = work_dir / 'curves.png', work_dir / 'predictions.png'
    draw_curves(detector, segmentor, curves)
    draw_sheet(DATA, detector / 'predictions', segmentor / 'predictions', sheet)

    rows.append(table_row('in all', {}, (time.monotonic() - start) / 60))
    print(f'\n{"":12}  box AP  box AP50  mask AP   mIoU  minutes', *rows, sep='\n')
    print(f'\nhow training went:           {curves.resolve()}\npredictions beside the truth: {sheet.resolve()}')


if __name__ == '__main__':
    main()
