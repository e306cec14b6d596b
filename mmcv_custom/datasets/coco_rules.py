"""How dataset classes read a COCO file, and what its categories mean to them."""

from __future__ import annotations

import difflib
import operator
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.fileio import list_from_file

from ..texts import some
from .coco import CocoFile
from .coco_fields import is_id
from .report import Harm, Report
from .sources import Source


@dataclass(frozen=True)
class CocoRules:
    """How a dataset class reads a COCO file. The defaults are those of mmdet's CocoDataset.

    Attributes:
        file_name: The image file below the image folder, from an entry of ``images``. May raise ``KeyError``.
        by_name: Whether it selects the categories by name; else all are used and ``classes`` only names them.
        sorted_ids: Whether labels follow the ids of the categories; else their order in the file.
    """

    file_name: Callable[[Mapping[str, Any]], str] = operator.itemgetter('file_name')
    by_name: bool = True
    sorted_ids: bool = False

    def chosen(self, file: CocoFile, classes: Sequence[str] | None) -> list[dict[str, Any]]:
        """The categories that get the labels 0, 1, 2, ..."""
        categories = [category for category in file.categories if _is_category(category)]
        if self.sorted_ids:
            categories.sort(key=lambda category: (isinstance(category['id'], str), category['id']))
        if self.by_name and classes is not None:
            categories = [category for category in categories if category['name'] in classes]
        return categories


DEFAULT_RULES = CocoRules()


def evaluates_file(source: Source, *metrics: str, **options: Any) -> bool:
    """Whether one of some metrics reads the truth from an annotation file; without one it takes it from the dataset.

    Args:
        source: The dataset.
        metrics: Names of metrics.
        options: Arguments that the metric must have.
    """
    return any(
        str(metric.get('type')).endswith(metrics)
        and metric.get('ann_file')
        and not metric.get('format_only')
        and all(metric.get(key) == value for key, value in options.items())
        for metric in source.evaluators
    )


def check_categories(
    file: CocoFile, source: Source, report: Report, classes: Sequence[str] | None, rules: CocoRules = DEFAULT_RULES
) -> None:
    """Compares the categories of a file with ``metainfo.classes``, in names and order."""

    def error(harm: Harm, kind: str, text: str) -> None:
        report.error(harm, kind, source.split, f'{file.path}: {text}')

    for i, category in enumerate(file.categories):
        if not _is_category(category):
            error(Harm.FAILS, 'category', f'categories[{i}] is {category!r:.80}, expected an id and a name')
            return
    for key in ('id', 'name'):
        for value, count in Counter(category[key] for category in file.categories).items():
            if count > 1:
                error(Harm.WRONG, f'category {key}', f'{count} categories have the {key} {value!r}; keep one of them')
    if isinstance(classes, str):  # MMEngine reads a file of names if there is one
        if os.path.isfile(classes):
            return check_categories(file, source, report, list_from_file(classes), rules)
        text = f'{source.key}.metainfo.classes is the string {classes!r}, expected a tuple: ({classes!r},)'
        report.error(Harm.WRONG, 'classes', source.split, text)
        return
    texts = [category['id'] for category in file.categories if isinstance(category['id'], str)]
    if texts and evaluates_file(source, 'CocoMetric', classwise=True):
        text = f'the ids {some(texts)} of categories are strings, with which CocoMetric(classwise=True) fails; '
        text += 'expected whole numbers'
        error(Harm.FAILS, 'category id', text + ('' if rules.sorted_ids else ', which --fix writes'))
    if classes is None or not file.categories:
        return
    for name, count in Counter(classes).items():
        if count > 1:
            error(Harm.WRONG, 'classes', f'{source.key}.metainfo.classes has {name!r} {count} times; keep one')
    names = [category['name'] for category in rules.chosen(file, classes)]
    if rules.by_name:
        _compare_chosen(file, source, report, classes, names, rules, error)
    elif sorted(names) == sorted(classes) and list(names) != list(classes):
        error(Harm.WRONG, 'order of classes', _order(names, classes, rules))
    elif len(names) != len(classes):
        text = f'{source.cfg.get("type")} uses all {len(names)} categories of the file, '
        error(Harm.WRONG, 'classes', text + f'and {source.key}.metainfo.classes has {len(classes)} names')
    else:
        differing = sum(name != other for name, other in zip(names, classes, strict=True))
        if differing == len(names):
            error(Harm.WRONG, 'no class matches', f'its categories are {some(names)}, the classes {some(classes)}')
        report.note(source.split, 'classes spelled otherwise than in the file', differing)


def _compare_chosen(
    file: CocoFile,
    source: Source,
    report: Report,
    classes: Sequence[str],
    names: Sequence[str],
    rules: CocoRules,
    error: Callable[[Harm, str, str], None],
) -> None:
    known = [category['name'] for category in file.categories]
    missing = [name for name in classes if name not in known]
    if not names:
        text = f'no class of {source.key}.metainfo.classes ({some(classes)}) is a category of the file'
        way_out = f'write metainfo=dict(classes=({some(known, 20)},)), and num_classes={len(known)} in the heads'
        error(Harm.FAILS, 'no class matches', f'{text}, which has {some(known)}; {way_out}')
        return
    expected = [name for name in classes if name in names]
    if list(names) != list(dict.fromkeys(expected)) and len(set(names)) == len(names):
        error(Harm.WRONG, 'order of classes', _order(names, expected, rules))
    others = [name for name in known if name not in classes]
    left = f', of which {some(others)} are not chosen' if others else ''
    last = max(i for i, name in enumerate(classes) if name in names)
    for i, name in enumerate(classes):
        if name not in missing:
            continue
        similar = similar_name(name, others)
        text = f'class {name!r} of {source.key}.metainfo.classes is no category of the file{left}'
        if similar and not (name + similar).isascii():  # letters that look the same, or cannot be seen
            text += f' (did you mean {similar!r}? They are {name!a} and {similar!a})'
        else:
            text += f' (did you mean {similar!r}?)' if similar else '; name the classes as the file does'
        if not similar and source.split != 'train':
            text += ', or if it has no objects here, let --fix add the category'
        if i < last:
            error(Harm.WRONG, 'class not in the file', f'{text}; all classes behind it get the label of the one before')
        elif evaluates_file(source, 'CocoMetric'):
            error(Harm.FAILS, 'class not in the file', f'{text}; the metric fails when it is predicted')
        elif similar:
            error(Harm.LOST, 'class not in the file', f'{text}; its objects are left out')
        else:
            report.note(source.split, 'classes without a category')
    report.note(source.split, 'categories that are not chosen', len(others))


def _order(names: Sequence[str], classes: Sequence[str], rules: CocoRules) -> str:
    i = next(i for i, (name, other) in enumerate(zip(names, classes, strict=False)) if name != other)
    if rules.sorted_ids:
        follow, way_out = 'ids of the categories', 'number the categories in the order of metainfo.classes'
    else:
        follow, way_out = 'order of the categories in the file', 'sort the categories as metainfo.classes'
        way_out += ', which --fix does' if rules.by_name else ''
    is_so = f'label {i} is {names[i]!r}, and metainfo.classes calls it {classes[i]!r}'
    return f'labels follow the {follow}: {is_so}; {way_out}'


def similar_name(name: str, known: Sequence[str]) -> str | None:
    """A name that is probably meant, first one that differs in case, spaces or signs only."""
    for other in known:
        if same_letters(name, other):
            return other
    return next(iter(difflib.get_close_matches(name, known, 1, 0.8)), None)


def _is_category(category: Mapping[str, Any]) -> bool:
    return is_id(category.get('id')) and isinstance(category.get('name'), str)


def same_letters(name: str, other: str) -> bool:
    """Whether two names differ in case, spaces, signs and the encoding of accents only."""
    texts = (unicodedata.normalize('NFKC', text).casefold() for text in (name, other))
    letters, others = (''.join(char for char in text if char.isalnum()) for text in texts)
    return letters == others != ''
