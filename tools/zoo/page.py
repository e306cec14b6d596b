"""The tables of docs/model_zoo.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mmcv_custom.zoo import Model, metafiles

ROOT = Path(__file__).resolve().parents[2]
ORIGINS = {
    'published': 'printed by the official repository for its checkpoint',
    'converted': 'measured by this project with the official checkpoint',
    'retrained': 'measured by this project with a checkpoint of its own training',
}


def render(models: Mapping[str, Model], backbones: Mapping[str, Model]) -> str:
    """Everything that the page derives from the metafiles, as Markdown."""
    sections = (
        _origins(models.values()),
        *(
            _dataset(title, [model for model in models.values() if model.dataset == title])
            for title in dict.fromkeys(model.dataset for model in models.values())
        ),
        _backbones(backbones.values()),
        _differences([*models.values(), *backbones.values()]),
        _names(models.values()),
    )
    return '\n'.join(line for section in sections for line in section) + '\n'


def _origins(models: Iterable[Model]) -> Iterator[str]:
    rows = Counter(origin for model in models for origin in model.results)
    yield '**Origin** of the results:\n'
    yield from (f'- *{origin}* ({rows[origin]} rows): {meaning}.' for origin, meaning in ORIGINS.items())
    yield ''


def _dataset(title: str, models: Sequence[Model]) -> Iterator[str]:
    metrics = dict.fromkeys(metric for model in models for result in model.results.values() for metric in result)
    yield f'## {title}\n'
    header = ['Model', 'Pre-training', 'Schedule', *metrics, 'Origin', 'Params', 'FLOPs', 'Memory', 'Checkpoint']
    yield from _table(header, (row for model in models for row in _model_rows(model, metrics)))
    notes = dict.fromkeys(model.notes for model in models if model.notes)
    yield from (f'- {", ".join(model.name for model in models if model.notes == note)}: {note}.' for note in notes)
    if notes:
        yield ''


def _model_rows(model: Model, metrics: Iterable[str]) -> Iterator[list[str]]:
    facts = model.metadata
    length = f'{facts["Epochs"]} epochs' if 'Epochs' in facts else f'{facts["Iterations"] // 1000}k iterations'
    for origin, results in (model.results or {'': {}}).items():
        yield [
            _link(model),
            facts['Pre-training'],
            f'{length} x {facts["Batch Size"]}',
            *(str(results.get(metric, '')) for metric in metrics),
            origin,
            _figure(model, 'Parameters', 1e6, 'M'),
            _figure(model, 'FLOPs', 1e9, 'G'),
            f'{facts["Activations"] / 2**20:.0f} MiB',
            f'[official]({model.checkpoint})' if model.checkpoint else '',
        ]


def _link(model: Model) -> str:
    return f'[{model.name}](../{model.config.relative_to(ROOT)})'


def _figure(model: Model, key: str, unit: float, symbol: str) -> str:
    measured = f'{model.metadata[key] / unit:.1f}{symbol}'
    mark = '†' if key in model.published.get('Differs', {}) else ''
    return f'{measured} ({model.published[key]}{mark})' if key in model.published else measured


def _backbones(backbones: Iterable[Model]) -> Iterator[str]:
    yield '## Backbones\n'
    yield 'Classification checkpoints, which `init_cfg` reads. Params and FLOPs are those of the backbone alone.\n'
    yield from _table(
        ['Checkpoint', 'arch', 'Pre-training', 'Image', 'Top-1', 'Params', 'FLOPs'],
        (
            [
                f'[{backbone.name}.pth]({backbone.checkpoint})',
                backbone.metadata['Arch'],
                backbone.metadata['Training Data'],
                str(backbone.image_size[0]),
                str(backbone.results.get('published', {}).get('Top 1 Accuracy', '')),
                _figure(backbone, 'Parameters', 1e6, 'M'),
                _figure(backbone, 'FLOPs', 1e9, 'G'),
            ]
            for backbone in backbones
        ),
    )


def _differences(models: Iterable[Model]) -> Iterator[str]:
    yield '## Printed figures that are not those of the model\n'
    rows = (
        [model.name, key, model.published[key], f'{model.metadata[key]:,}', reason]
        for model in models
        for key, reason in model.published.get('Differs', {}).items()
    )
    yield from _table(['Model', 'Figure', 'Printed', 'Measured', 'Why'], rows)


def _names(models: Iterable[Model]) -> Iterator[str]:
    yield '## From official names to these\n'
    rows = (
        [
            f'`{Path(model.published["Config"]).stem}`',
            _link(model),
            f'`{Path(model.checkpoint).name}`' if model.checkpoint else '',
        ]
        for model in models
        if 'Config' in model.published
    )
    yield from _table(['Official config', 'Config', 'Official checkpoint'], rows)
    yield 'Without a counterpart:\n'
    collections = (collection for content in metafiles().values() for collection in content['Collections'])
    yield from (f'- {text}.' for collection in collections for text in collection.get('Not Included', []))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield from (f'| {" | ".join(cells)} |' for cells in (header, ['---'] * len(header), *rows))
    yield ''
