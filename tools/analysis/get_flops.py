"""Parameters, FLOPs and activation memory of a model, from its config alone: no weights, no data, little memory.

python tools/analysis/get_flops.py configs/detection/coco/mask-rcnn_internimage-t_fpn_1x_coco.py
python tools/analysis/get_flops.py my_config.py --shape 640 640
python tools/analysis/get_flops.py --all
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.config import DictAction

from mmcv_custom import zoo
from mmcv_custom.cli import fail, read_config, table
from mmcv_custom.complexity import measure_config

DIVISOR = 32  # the official tools pad to multiples of it
CONVENTION = """FLOPs, official convention: a multiply-add is one; convolution and linear layers, and 5 per channel and
sampling point of DCNv3. All products: also those of attention. Activations: largest set alive at once in
the inference of one image in float32, followed through a run on tensors that have shapes and no values."""


def main() -> None:
    parser = argparse.ArgumentParser(description='Parameters, FLOPs and activation memory of a model.')
    parser.add_argument('config', nargs='?', help='config file')
    parser.add_argument('--all', action='store_true', help='one table of the whole model zoo instead')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='image size, rounded up to multiples of 32 (default: that of the published figure, '
        'else 800 1280 for detectors and 512 2048 for segmentors)',
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='overrides')
    args = parser.parse_args()
    if args.all == bool(args.config) or (args.all and args.cfg_options):
        fail('expected either a config file, and perhaps --cfg-options, or --all')
    if args.shape and min(args.shape) < 1:
        fail(f'--shape must be two positive numbers, got {args.shape[0]} {args.shape[1]}')
    print(whole_zoo(args.shape) if args.all else one_model(args.config, args.shape, args.cfg_options))
    print(CONVENTION)


def one_model(config: str, shape: list[int] | None, overrides: dict | None) -> str:
    """A description, line by line."""
    cfg = read_config(config, overrides)
    model = next((model for model in zoo.models().values() if model.path == Path(config).resolve()), None)
    scope = cfg.get('default_scope')
    if scope not in zoo.IMAGES:
        fail(f'default_scope of {config} must be one of {", ".join(zoo.IMAGES)}, got {scope!r}')
    if 'model' not in cfg:
        fail(f'{config} holds no model')
    size = padded(shape) if shape else model.size if model else zoo.IMAGES[scope]
    found = measure_config(cfg, size)
    as_published = model is not None and size == model.size and not overrides
    rows = [
        ('parameters', f'{found.params:,}', f'published: {model.params}' if model and model.params else ''),
        ('FLOPs', giga(found.flops), f'published: {model.flops}' if as_published and model and model.flops else ''),
        *((f'  {part}', giga(flops), '') for part, flops in found.parts.items()),
        ('all products', giga(found.products), ''),
        ('activations', mebi(found.activations), ''),
    ]
    return f'{Path(config).stem}, image {size[0]} x {size[1]}\n{table(rows)}'


def whole_zoo(shape: list[int] | None) -> str:
    """A table, a row per model."""
    rows = [('model', 'image', 'params', 'published', 'FLOPs', 'published', 'backbone', 'all products', 'activations')]
    for model in zoo.models().values():
        size = padded(shape) if shape else model.size
        found = measure_config(read_config(str(model.path)), size)
        rows.append(
            (
                model.name,
                f'{size[0]} x {size[1]}',
                f'{found.params / 1e6:.1f}M',
                model.params or '',
                giga(found.flops),
                (size == model.size and model.flops) or '',
                giga(found.parts['backbone']),
                giga(found.products),
                mebi(found.activations),
            )
        )
    return table(rows)


def padded(shape: list[int]) -> tuple[int, int]:
    height, width = (-(-side // DIVISOR) * DIVISOR for side in shape)
    return height, width


def giga(flops: int) -> str:
    return f'{flops / 1e9:.1f}G'


def mebi(size: int) -> str:
    return f'{size / 2**20:.0f} MiB'


if __name__ == '__main__':
    main()
