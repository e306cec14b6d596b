"""Write a config for your own data: for a detector from COCO JSON files, for a segmentor from folders of masks.

python tools/new_config.py mask-rcnn_internimage-t_fpn_1x_coco --train images/train train.json --val images/val val.json
python tools/new_config.py upernet_digits --train images/train masks/train --val images/val masks/val --classes no cat
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from mmengine.config import Config

from mmcv_custom.cli import Parser, fail, user_errors_in_one_line
from mmcv_custom.new_config import (
    Draft,
    Options,
    assemble,
    commands,
    find_base,
    length_of,
    read_instances,
    read_segments,
)


def new_parser() -> Parser:
    parser = Parser(description='Write a config for your own data.')
    parser.add_argument('name', help='a model of the zoo, which mm-internimage list names, or of configs/demo')
    for split in ('train', 'val', 'test'):
        parser.add_argument(
            f'--{split}',
            nargs=2,
            metavar=('IMAGES', 'ANNOTATIONS'),
            help='folder of images, and a COCO JSON file or a folder of masks'
            + (' (default: those of --val)' if split == 'test' else ''),
        )
    parser.add_argument(
        '--classes',
        nargs='+',
        metavar='NAME',
        help='categories to use, or names of the numbers in the masks; or a file with a name per line',
    )
    parser.add_argument('--out', help='file to write (default: configs/my_<dataset>.py)')
    parser.add_argument('--batch-size', type=int, metavar='N', help='images per GPU and step')
    parser.add_argument('--gpus', type=int, default=1, metavar='N', help='number of GPUs (default %(default)s)')
    parser.add_argument(
        '--size', nargs=2, type=int, metavar=('H', 'W'), help='pixels: of crops for segmentors, the most for detectors'
    )
    parser.add_argument('--from-official', action='store_true', help='start from the official detector or segmentor')
    return parser


def main() -> None:
    args = new_parser().parse_args()
    for name, values, low in (
        ('batch-size', [args.batch_size or 1], 1),
        ('gpus', [args.gpus], 1),
        ('size', args.size or [], 32),
    ):
        for value in values:
            if value < low:
                fail(f'--{name} must be at least {low}, got {value}')
    for split in ('train', 'val'):
        if getattr(args, split) is None:
            fail(f'--{split} must name a folder of images and its annotations')

    with user_errors_in_one_line():
        base = find_base(args.name)
        paths = {split: tuple(getattr(args, split)) for split in ('train', 'val', 'test') if getattr(args, split)}
        data = (read_instances if base.detects else read_segments)(paths, names_of(args.classes))
        options = Options(
            batch_size=args.batch_size,
            gpus=args.gpus,
            size=args.size and tuple(args.size),
            from_official=args.from_official,
        )
        draft = assemble(base, data, options)

    folder = Path('configs' if os.path.isdir('configs') else '.')
    out = Path(args.out or folder / f'my_{data.name}.py')
    cfg = read_draft(draft, out)
    # The data check goes here.
    write(draft, out)
    images = data.splits['train'].count
    facts = [*draft.notes, length_of(cfg, images, args.gpus)]
    shown = ', '.join(data.classes[:20]) + (' ...' if len(data.classes) > 20 else '')
    print(f'{out} written: {base.title}\n- {len(data.classes)} classes: {shown}')
    print(*(f'- {fact}' for fact in facts), 'Next:', sep='\n')
    print(*(f'    {command}' for command in commands(cfg, out, args.gpus)), sep='\n')


def names_of(arguments: list[str] | None) -> list[str] | None:
    """The names of ``--classes``, or those in the file that it names."""
    if not arguments or len(arguments) > 1 or not os.path.isfile(arguments[0]):
        return arguments
    return [line.strip() for line in Path(arguments[0]).read_text().splitlines() if line.strip()]


def read_draft(draft: Draft, out: Path) -> Config:
    """The config that a draft will be, as read by MMEngine."""
    with TemporaryDirectory() as folder:
        path = Path(folder, out.name)
        path.write_text(draft.text(out, base=str(draft.base.path)))
        cfg = Config.fromfile(path)
    return Config(cfg.to_dict(), cfg_text=draft.text(out), filename=str(out))


def write(draft: Draft, out: Path) -> None:
    """Writes a draft to a new file."""
    if out.suffix != '.py':
        fail(f'--out must name a .py file, got {out}')
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with open(out, 'x', encoding='utf-8') as file:
            file.write(draft.text(out))
    except FileExistsError:
        fail(f'{out} exists already, and is not overwritten; name another file with --out')
    except OSError as problem:
        fail(f'--out {out}: cannot write it: {problem.strerror}')


if __name__ == '__main__':
    main()
