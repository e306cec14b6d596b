"""Write what is generated of the model zoo: measured.yml, docs/model_zoo.md, model-index.yml, metafile.yml of configs.

python tools/analysis/make_zoo.py            # measures all models first: two minutes
python tools/analysis/make_zoo.py --pages    # from the measured.yml that is there
python tools/analysis/make_zoo.py --check    # writes nothing, and fails if anything would change

The sources are the configs and mmcv_custom/zoo/published.yml.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.fileio import dump

from mmcv_custom import InternImage, zoo
from mmcv_custom.cli import fail, read_config
from mmcv_custom.complexity import Complexity, measure, measure_config
from mmcv_custom.zoo import page

ROOT = zoo.CONFIGS.parent
PAPER = {
    'Title': 'InternImage: Exploring Large-Scale Vision Foundation Models with Deformable Convolutions',
    'URL': 'https://arxiv.org/abs/2211.05778',
}
GENERATED = 'Written by tools/analysis/make_zoo.py; edit mmcv_custom/zoo/published.yml or the configs instead.'


def main() -> None:
    parser = argparse.ArgumentParser(description='Write what is generated of the model zoo.')
    parser.add_argument('--pages', action='store_true', help='do not measure again')
    parser.add_argument('--check', action='store_true', help='write nothing, fail if anything would change')
    args = parser.parse_args()
    measured = zoo.measured() if args.pages else measure_all()
    stale = []
    for path, text in files(measured).items():
        if not path.exists() or path.read_text() != text:
            stale.append(path.relative_to(ROOT).as_posix())
            if not args.check:
                path.write_text(text)
    if args.check and stale:
        fail(f'{", ".join(stale)} would change: run python tools/analysis/make_zoo.py')
    print('\n'.join(f'wrote {path}' for path in stale) or 'everything is up to date')


def files(measured: Mapping[str, dict[str, Any]]) -> dict[Path, str]:
    """All generated files and what they should hold."""
    folders: dict[Path, list[zoo.Model]] = {}
    for model in zoo.models().values():
        folders.setdefault(model.path.parent, []).append(model)
    metafiles = {folder / 'metafile.yml': metafile(models, measured) for folder, models in sorted(folders.items())}
    return {
        zoo.MEASURED: _yaml(dict(measured)),
        ROOT / 'docs/model_zoo.md': page.render(measured),
        ROOT / 'model-index.yml': _yaml({'Import': [path.relative_to(ROOT).as_posix() for path in metafiles]}),
        **{path: _yaml(content) for path, content in metafiles.items()},
    }


def _yaml(content: dict[str, Any]) -> str:
    return f'# {GENERATED}\n' + dump(content, file_format='yaml', sort_keys=False, width=120)


def measure_all() -> dict[str, dict[str, Any]]:
    """What :func:`measure_model` and :func:`measure_backbone` find, by name."""
    found = {}
    for model in zoo.models().values():
        print(f'measuring {model.name}', file=sys.stderr)
        found[model.name] = measure_model(model)
    return found | {name: measure_backbone(backbone) for name, backbone in zoo.backbones().items()}


def measure_model(model: zoo.Model) -> dict[str, Any]:
    """Cost, schedule and starting point of a config."""
    cfg = read_config(str(model.path))
    return {**_cost(measure_config(cfg, model.size)), **training(cfg)}


def measure_backbone(backbone: zoo.Backbone) -> dict[str, Any]:
    """Cost of a backbone without classifier."""
    with torch.device('meta'):
        model = InternImage(backbone.arch)
    return _cost(measure(model, *backbone.size))


def _cost(complexity: Complexity) -> dict[str, Any]:
    params, parts, products, activations = complexity
    return dict(params=params, flops=complexity.flops, parts=parts, products=products, activations=activations)


def training(cfg: Config) -> dict[str, Any]:
    """The schedule of a config, and the file that it starts from, if it names one."""
    loop = cfg.train_cfg
    counted = f'{loop.max_epochs} epochs' if 'max_epochs' in loop else f'{loop.max_iters} iterations'
    pretrained = (cfg.model.backbone.get('init_cfg') or {}).get('checkpoint')
    start = cfg.get('load_from') or pretrained
    return dict(schedule=counted, batch_size=cfg.auto_scale_lr.base_batch_size, start=start and Path(start).name)


def metafile(models: Sequence[zoo.Model], measured: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The entries of one folder. ``Weights`` are the official files, which tools/test.py converts as it loads them."""
    title = zoo.datasets()[models[0].dataset].title
    collection = f'InternImage on {title}'
    methods = list(dict.fromkeys(model.method for model in models))
    return {
        'Collections': [
            {
                'Name': collection,
                'Metadata': {'Training Data': title, 'Architecture': ['InternImage', *methods]},
                'Paper': PAPER,
                'README': 'docs/model_zoo.md',
            }
        ],
        'Models': [_index_entry(model, collection, measured[model.name]) for model in models],
    }


def _index_entry(model: zoo.Model, collection: str, found: Mapping[str, Any]) -> dict[str, Any]:
    title, task = zoo.datasets()[model.dataset].title, zoo.datasets()[model.dataset].task
    count, unit = found['schedule'].split()
    entry = {
        'Name': model.name,
        'In Collection': collection,
        'Config': f'configs/{model.config}',
        'Metadata': {
            'Training Data': title,
            unit.capitalize(): int(count),
            'Batch Size': found['batch_size'],
            'Parameters': found['params'],
            'FLOPs': found['flops'],
        },
        'Results': [
            {'Task': task, 'Dataset': title, 'Origin': origin, 'Metrics': metrics}
            for origin, metrics in model.results.items()
        ],
        'Weights': model.url,
    }
    return {key: value for key, value in entry.items() if value}


if __name__ == '__main__':
    main()
