"""Evaluate a checkpoint of a detector or a segmentor. The config's default_scope decides which libraries it comes from.

    python tools/test.py configs/demo/mask-rcnn_digits.py work_dirs/mask-rcnn_digits/iter_1000.pth --show-dir pictures
"""

from __future__ import annotations

from mmengine.config import ConfigDict
from mmengine.registry import METRICS

from mmcv_custom.cli import build_runner, check_data, existing_file, fail, load_config, new_parser

DUMPERS = {'mmdet': 'DumpDetResults', 'mmseg': 'DumpSegResults'}


def main() -> None:
    parser = new_parser('Evaluate a detector or a segmentor.')
    parser.add_argument('checkpoint', help='file or URL')
    parser.add_argument('--out', metavar='FILE.pkl', help='file for the predictions, one per image')
    parser.add_argument('--show-dir', metavar='FOLDER', help='folder for pictures of the truth and the prediction of every image')
    parser.add_argument('--tta', action='store_true', help="test-time augmentation, by the config's tta_pipeline and tta_model")
    args = parser.parse_args()
    if args.out and not args.out.endswith('.pkl'):
        fail(f'--out must end in .pkl, got {args.out}')
    cfg = load_config(args)

    cfg.load_from = existing_file(args.checkpoint, 'checkpoint')
    if args.tta:
        if not {'tta_model', 'tta_pipeline'} <= set(cfg):
            fail(f'--tta needs tta_model and tta_pipeline in {args.config}')
        cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    if args.show_dir:
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='PictureHook', out_dir=args.show_dir)]
    check_data(cfg, 'test')

    runner = build_runner(cfg)
    if args.out:
        dumper = DUMPERS.get(str(cfg.get('default_scope')), 'DumpResults')
        runner.test_loop.evaluator.metrics.append(METRICS.build(dict(type=dumper, out_file_path=args.out)))
    runner.test()


if __name__ == '__main__':
    main()
