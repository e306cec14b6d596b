"""``python -m mmcv_custom.zoo list|show NAME|path NAME``: what is in the model zoo, from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from ..cli import fail, table
from . import Model, UnknownModelError, datasets, find, measured, models

FILTERS = ('dataset', 'method', 'backbone')


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m mmcv_custom.zoo', description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    listing = commands.add_parser('list', help='a table of all models')
    for key in FILTERS:
        listing.add_argument(
            f'--{key}', choices=list(dict.fromkeys(getattr(model, key) for model in models().values()))
        )
    for command, text in (('show', 'all that is known of a model'), ('path', 'where its config is')):
        one = commands.add_parser(command, help=text)
        one.add_argument('name', help='of the model, or of its official config')
    args = parser.parse_args()
    if args.command == 'list':
        wanted = {key: getattr(args, key) for key in FILTERS if getattr(args, key)}
        rows = [_row(model) for model in models().values() if wanted.items() <= vars(model).items()]
        if not rows:
            fail(f'no model has {wanted}')
        print(table([('name', 'method', 'backbone', 'data set', 'published', 'params', 'FLOPs'), *rows]))
        return
    try:
        model = find(args.name)
    except UnknownModelError as problem:
        fail(str(problem))
    print('\n'.join(_description(model)) if args.command == 'show' else _existing_path(model))


def _results(metrics: dict[str, float]) -> str:
    return ', '.join(f'{metric} {value}' for metric, value in metrics.items()) or '-'


def _row(model: Model) -> tuple[str, ...]:
    found = measured()[model.name]
    published = _results(model.results.get('published', {}))
    size = (f'{found["params"] / 1e6:.1f}M', f'{found["flops"] / 1e9:.0f}G')
    return model.name, model.method, model.backbone, datasets()[model.dataset].title, published, *size


def _description(model: Model) -> Iterable[str]:
    found = measured()[model.name]
    height, width = model.size
    facts = {
        'config': f'configs/{model.config}',
        'official config': model.official,
        'checkpoint': model.url,
        'method': f'{model.method} on {model.backbone}',
        'pre-training': model.pretrain,
        'starts from': found['start'],
        'data set': datasets()[model.dataset].title,
        'schedule': f'{model.schedule}: {found["schedule"]}, {found["batch_size"]} images at a time',
        'training crop': model.resolution,
        **{origin: _results(metrics) for origin, metrics in model.results.items()},
        'parameters': f'{found["params"]:,}' + (f' (published: {model.params})' if model.params else ''),
        'FLOPs': f'{found["flops"] / 1e9:.1f}G'
        + (f' (published: {model.flops})' if model.flops else '')
        + f', of an image of {height} x {width}',
        'activations': f'{found["activations"] / 2**20:.0f} MiB at most, inference in float32',
        'published in': ', '.join(model.tables),
        'notes': model.notes,
        **{f'{figure} differ': reason for figure, reason in model.differs.items()},
    }
    return (f'{key:<17}{value}' for key, value in {'name': model.name, **facts}.items() if value)


def _existing_path(model: Model) -> str:
    if not model.path.is_file():
        fail(
            f'{model.path} does not exist: configs come with a clone of the repository, not with the installed package'
        )
    return str(model.path)


if __name__ == '__main__':
    main()
