"""Evaluate a checkpoint of a detector or a segmentor: the config's default_scope decides which.

python tools/test.py configs/demo/mask-rcnn_digits.py work_dirs/demo/mask-rcnn/iter_1000.pth --show-dir pictures
"""

from __future__ import annotations

import copy
import os

from mmcv_custom.cli import (
    build_runner,
    check_config,
    check_data,
    check_output_file,
    check_outputs,
    check_paths,
    existing_file,
    fail,
    load_config,
    make_folder,
    mistakes_in_one_line,
    new_parser,
    use_tta,
)
from mmcv_custom.cli.guards import match_annotation_files
from mmcv_custom.cli.start import add_terminal_hooks
from mmcv_custom.cli.terminal import quiet_terminal

DUMPERS = {'mmdet': 'DumpDetResults', 'mmseg': 'DumpSegResults'}


def main() -> None:
    parser = new_parser('Evaluate a detector or a segmentor.')
    parser.add_argument('checkpoint', help='file or URL')
    parser.add_argument('--out', metavar='FILE.pkl', help='file for the predictions, one per image')
    parser.add_argument(
        '--show-dir', metavar='FOLDER', help='folder for a picture of every image, truth and prediction'
    )
    parser.add_argument('--tta', action='store_true', help='test-time augmentation, by tta_model and tta_pipeline')
    args = parser.parse_args()
    quiet_terminal(args.debug)
    if args.out is not None and not args.out.endswith('.pkl'):
        fail(f'--out must name a .pkl file, got {args.out!r}')
    if args.out and os.path.isfile(args.out) and os.path.getsize(args.out):
        fail(f'--out {args.out} exists: name another file or delete it')
    if args.show_dir == '':
        fail("--show-dir must name a folder, got ''")
    if args.show_dir and os.path.isdir(args.show_dir) and os.listdir(args.show_dir):
        fail(f'--show-dir {args.show_dir} is not empty: name another folder or delete it')
    cfg = load_config(args)
    check_config(cfg, 'test')

    cfg.load_from = existing_file(args.checkpoint, 'checkpoint')
    check_paths(cfg, 'test')
    match_annotation_files(cfg, 'test')
    plain = copy.deepcopy(cfg)  # the data check needs the pipeline without augmentation
    if args.tta:
        use_tta(cfg)
    if args.out:
        check_output_file(args.out, '--out')
    if args.show_dir:
        make_folder(args.show_dir, '--show-dir')
    check_outputs(cfg, 'test')
    hooks = [dict(type='CompleteCheckpointHook')]
    if args.show_dir:
        hooks.append(dict(type='PictureHook', out_dir=args.show_dir))
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), *hooks]
    if args.out:
        metrics = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        dumper = DUMPERS.get(str(cfg.get('default_scope')), 'DumpResults')
        cfg.test_evaluator = [*metrics, dict(type=dumper, out_file_path=args.out)]

    with mistakes_in_one_line(cfg, args.debug):
        if not args.skip_data_check:
            check_data(plain, 'test')
        runner = build_runner(cfg)
        add_terminal_hooks(runner)
        runner.test()


if __name__ == '__main__':
    main()
