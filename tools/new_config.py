"""Write a config for your own data: for a detector from COCO JSON files, for a segmentor from folders of masks.

python tools/new_config.py mask-rcnn_internimage-t_fpn_1x_coco --train images/train train.json --val images/val val.json
python tools/new_config.py upernet_digits --train images/train masks/train --val images/val masks/val --classes no cat
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from mmengine.config import Config

from mmcv_custom.cli import (
    Parser,
    fail,
    make_folder,
    mistakes_in_one_line,
    print_errors,
    user_errors_in_one_line,
)
from mmcv_custom.cli.terminal import quiet_terminal
from mmcv_custom.datasets import Report, check_datasets
from mmcv_custom.new_config import (
    Base,
    Data,
    Draft,
    Options,
    assemble,
    commands,
    find_base,
    length_of,
    read_instances,
    read_segments,
)
from mmcv_custom.old_configs import Translation, model_of, read_old_config, translate


def new_parser() -> Parser:
    parser = Parser(description='Write a config for your own data.')
    parser.add_argument('name', nargs='?', help='a model that mm-internimage list names, or one of configs/demo')
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
    parser.add_argument(
        '--suffix',
        nargs=2,
        metavar=('IMAGE', 'MASK'),
        help='what the names of images and masks end with, such as _leftImg8bit.png _gtFine_labelIds.png',
    )
    parser.add_argument('--out', metavar='FILE.py', help='file to write (default: configs/my_<dataset>.py)')
    parser.add_argument('--batch-size', type=int, metavar='N', help='images per GPU and step')
    parser.add_argument('--gpus', type=int, default=1, metavar='N', help='number of GPUs (default: %(default)s)')
    parser.add_argument(
        '--size', nargs=2, type=int, metavar=('H', 'W'), help='pixels: of crops for segmentors, the most for detectors'
    )
    parser.add_argument('--from-official', action='store_true', help='start from the official detector or segmentor')
    parser.add_argument(
        '--from', dest='old', metavar='OLD.py', help='carry over a config of mmdet 2 or mmseg 0; its code is run'
    )
    return parser


def main() -> None:
    args = new_parser().parse_args()
    quiet_terminal(debug=False)
    for argument, values, least in (
        ('--batch-size', [args.batch_size], 1),
        ('--gpus', [args.gpus], 1),
        ('--size', args.size or [], 32),
    ):
        for value in values:
            if value is not None and value < least:
                fail(f'{argument} must be at least {least}, got {value}')
    if not args.name and not args.old:
        fail('name a model, such as mask-rcnn_internimage-t_fpn_1x_coco, or an old config with --from')

    with user_errors_in_one_line():
        old = read_old_config(args.old) if args.old else None
        base = find_base(args.name or model_of(old))
        wishes = translate(old, base.cfg) if old else Translation()
        paths = {split: tuple(getattr(args, split)) for split in ('train', 'val', 'test') if getattr(args, split)}
        paths = {**wishes.paths, **paths}
        data = read_data(base, args, paths, wishes)
        draft = assemble(base, data, options_of(args, wishes))

    folder = Path('configs' if os.path.isdir('configs') else '.')
    out = Path(args.out or folder / f'my_{data.name if data else Path(args.old).stem}.py')
    check_new(out)
    cfg = read_draft(draft, out)
    with mistakes_in_one_line(cfg):
        report = check_datasets(cfg, list(data.splits)) if data else Report()
    write(draft, out)
    facts = list(draft.notes)
    if data:
        names = ', '.join(data.classes[:20]) + (' ...' if len(data.classes) > 20 else '')
        facts = [f'{len(data.classes)} classes: {names}', *facts, length_of(cfg, data.splits['train'].count, args.gpus)]
        facts += [] if report.failed else [f'data check passed: {report.summary()}']
    facts += [f'not carried over: {note}' for note in wishes.notes]
    print(f'{out} written: {base.title}', *(f'- {fact}' for fact in facts), sep='\n')
    if report.failed:
        print_errors(report)
        fail(f'the data have errors, see above; repair them, or try tools/check_data.py {out} --fix DIR')
    print('Next:', *(f'    {command}' for command in commands(cfg, out, args.gpus, wishes.amp)), sep='\n')


def read_data(base: Base, args: argparse.Namespace, paths: dict, wishes: Translation) -> Data | None:
    """The user's dataset; ``None`` for that of the model's config, if an old config says nothing else."""
    for split in ('train', 'val') if paths or not args.old else ():
        if split not in paths:
            fail(f'--{split} must name a folder of images and their annotations')
    if paths:
        names = names_of(args.classes) or wishes.classes
        if not base.detects:
            return read_segments(paths, names, tuple(args.suffix) if args.suffix else None)
        if args.suffix:
            fail(f'--suffix is for segmentors, and {base.path.stem} is a detector')
        return read_instances(paths, names)
    if wishes.other_classes:
        fail(
            f'--from {args.old}: its model has num_classes={max(wishes.other_classes)}, and it names neither data nor '
            'classes; name them with --train, --val and --classes'
        )
    if wishes.resizes or wishes.size:
        wishes.notes.append('sizes of images, which need --train and --val')
    return None


def options_of(args: argparse.Namespace, wishes: Translation) -> Options:
    """The arguments, and where they say nothing what the old config asks for."""
    return Options(
        batch_size=args.batch_size or wishes.batch_size,
        gpus=args.gpus,
        size=tuple(args.size) if args.size else wishes.size,
        resizes={} if args.size else wishes.resizes,
        lr=wishes.lr,
        from_official=args.from_official,
        settings=wishes.settings,
    )


def names_of(arguments: list[str] | None) -> list[str] | None:
    """The names of ``--classes``, or those in the file that it names."""
    if not arguments or len(arguments) > 1 or not os.path.isfile(arguments[0]):
        return arguments
    try:
        lines = Path(arguments[0]).read_text('utf-8-sig').split('\n')
    except UnicodeDecodeError as problem:
        fail(f'--classes {arguments[0]}: it is no text in UTF-8: {problem}')
    names = [line for line in lines if line.strip()]
    for name in names:
        if name != name.strip():
            fail(f'--classes {arguments[0]}: the name {name!a} begins or ends with a space; take it out')
    return names


def read_draft(draft: Draft, out: Path) -> Config:
    """The config that a draft will be, as read by MMEngine."""
    with TemporaryDirectory() as folder:
        path = Path(folder, out.name)
        path.write_text(draft.text(out, base=str(draft.base.path)))
        cfg = Config.fromfile(path)
    return Config(cfg.to_dict(), cfg_text=draft.text(out), filename=str(out))


def check_new(out: Path) -> None:
    """Ends the program if a file is no new config."""
    if out.suffix != '.py':
        fail(f'--out must name a .py file, got {out}')
    if out.exists():
        fail(f'{out} exists already, and is not overwritten; name another file with --out')


def write(draft: Draft, out: Path) -> None:
    """Writes a draft to a new file."""
    make_folder(str(out.parent), '--out: folder')
    with open(out, 'x', encoding='utf-8') as file:
        file.write(draft.text(out))


if __name__ == '__main__':
    main()
