"""Train a detector or a segmentor: the config's default_scope decides which.

python tools/train.py configs/demo/mask-rcnn_digits.py
torchrun --nproc-per-node 8 tools/train.py CONFIG --launcher pytorch
"""

from __future__ import annotations

from mmengine.device import get_device

from mmcv_custom.cli import (
    build_runner,
    check_config,
    check_data,
    check_initial_weights,
    check_outputs,
    check_paths,
    existing_file,
    fail,
    load_config,
    mistakes_in_one_line,
    new_parser,
    newest_checkpoint,
)
from mmcv_custom.cli.guards import match_annotation_files
from mmcv_custom.cli.start import add_terminal_hooks
from mmcv_custom.cli.terminal import quiet_terminal


def main() -> None:
    parser = new_parser('Train a detector or a segmentor.')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='',
        metavar='CHECKPOINT',
        help='go on from a checkpoint; without a value, from the newest in the work folder; with auto, from there if '
        'one was saved, else start',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision: float16, on the CPU bfloat16')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size, by auto_scale_lr'
    )
    args = parser.parse_args()
    quiet_terminal(args.debug)
    cfg = load_config(args)
    check_config(cfg, 'train')

    if args.amp:
        if get_device() == 'cpu':
            cfg.optim_wrapper.type = 'CPUAmpOptimWrapper'
        else:
            cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            fail(f'--auto-scale-lr needs auto_scale_lr.base_batch_size in {args.config}')
        cfg.auto_scale_lr.enable = True
    if args.resume is not None:
        if args.resume in ('', 'auto'):
            checkpoint = newest_checkpoint(cfg.work_dir, required=args.resume == '')
        else:
            checkpoint = existing_file(args.resume, 'checkpoint')
        if checkpoint:
            cfg.resume, cfg.load_from = True, checkpoint
    check_paths(cfg, 'train', 'val')
    match_annotation_files(cfg, 'val')
    check_initial_weights(cfg)
    check_outputs(cfg, 'train')

    with mistakes_in_one_line(cfg, args.debug):
        if not args.skip_data_check:
            check_data(cfg, 'train', 'val')
        runner = build_runner(cfg)
        add_terminal_hooks(runner)
        runner.train()


if __name__ == '__main__':
    main()
