"""Check the data that a config trains on and evaluates; exit code 1 if there are errors.

python tools/check_data.py configs/my.py
python tools/check_data.py configs/my.py --show samples --fix data/repaired
"""

from __future__ import annotations

import json
import re
import sys

from mmcv_custom.cli import (
    Parser,
    add_config_arguments,
    check_kinds,
    draw_samples,
    fail,
    mistakes_in_one_line,
    new_folder,
    print_errors,
    read_config,
)
from mmcv_custom.cli.guards import match_annotation_files
from mmcv_custom.cli.terminal import quiet_terminal
from mmcv_custom.datasets import check_datasets, fix_datasets

SPLITS = ('train', 'val', 'test')
ENTRY = re.compile(r'(train|val|test)_(dataloader|evaluator)[\w.]*=')  # of a config


def instructions(config: str, repairs: list[str]) -> str:
    """What was repaired, and how to use it."""
    entries = [line for line in repairs if ENTRY.match(line)]
    lines = [line for line in repairs if line not in entries] or ['nothing to repair that has one right answer']
    if entries:
        lines += ['Check the repaired data, and train with the same options or with these entries in the config:']
        lines += [f'    python tools/check_data.py {config} --cfg-options ' + ' '.join(entries)]
    return '\n'.join(lines)


def main() -> None:
    parser = Parser(description='Check the data that a config trains on and evaluates.')
    add_config_arguments(parser)
    parser.add_argument('--full', action='store_true', help='look at every image and mask, not at a sample')
    parser.add_argument('--fix', metavar='DIR', help='new folder for repaired annotations; the originals stay')
    parser.add_argument('--show', metavar='DIR', help='new folder for pictures of samples as training gets them')
    parser.add_argument('--json', action='store_true', help='print the report as JSON')
    args = parser.parse_args()
    quiet_terminal(args.debug)
    cfg = read_config(args.config, args.cfg_options, args.debug)
    check_kinds(cfg)
    splits = [split for split in SPLITS if cfg.get(f'{split}_dataloader')]
    if not splits:
        fail(f'{args.config} has no train_dataloader, val_dataloader or test_dataloader')
    for folder, option in ((args.fix, '--fix'), (args.show, '--show')):
        if folder is not None:
            new_folder(folder, option)
    match_annotation_files(cfg, *(split for split in splits if split != 'train'))
    with mistakes_in_one_line(cfg, args.debug):
        report = check_datasets(cfg, splits, args.full)
        repairs = fix_datasets(cfg, splits, args.fix) if args.fix else []
    if args.json:
        print(json.dumps({**report.to_dict(), 'repairs': repairs}, indent=1))
    else:
        print_errors(report)
        found = f'failed, errors: {report.error_count}' if report.failed else 'passed'
        print(f'data check {found}: {report.summary()}')
        if args.fix:
            print(instructions(args.config, repairs))
    if args.show:
        with mistakes_in_one_line(cfg, args.debug):
            draw_samples(cfg, args.show, splits[0])
    sys.exit(int(report.failed))


if __name__ == '__main__':
    main()
