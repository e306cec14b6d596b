"""Layer 1 of the segmentation check: settings, files and values of masks, read without the dataset."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence

from mmcv.transforms import LoadImageFromFile
from mmengine.registry import DATASETS, TRANSFORMS
from mmseg.datasets import BaseSegDataset

from mmcv_custom.datasets import Harm, class_of
from mmcv_custom.datasets.images import HEADERS, MASKS, Header, read_header, too_dark
from mmcv_custom.datasets.masks import Mask, MaskFolders, Values, read_mask, suffix_of_all
from mmcv_custom.texts import some

from .base import FIX, MaskCheck, mask_folders
from .values import MaskValues, ignored_labels


def check_structure(check: MaskCheck) -> None:
    """Checks settings, files that belong together, headers of images, formats, sizes and values of masks."""
    if not _folders_exist(check) or not _classes_fit(check):
        return
    settings = check.build(lazy_init=True, pipeline=[])
    if settings is None or not _settings_fit(check, settings):
        return
    folders = mask_folders(settings)
    if folders is None:
        check.leave_out(f'files, which {type(settings).__name__} finds in its own way')
        return
    names = _names(check, folders)
    headers = _headers(check, [folders.image(name) for name in check.sample(names, HEADERS)])
    if not check.loads_masks():
        return
    if check.changing:
        check.leave_out(f'values of masks, which {some(check.changing)} changes')
        return
    _values(check, _masks(check, folders, check.sample(names, MASKS), headers), MaskValues.of(settings, check.source))


def _folders_exist(check: MaskCheck) -> bool:
    prefix = check.source.cfg.get('data_prefix', dict(img_path='', seg_map_path='')) or {}
    good = True
    for key in ('img_path', *(('seg_map_path',) if check.loader is not None else ())):
        place = f'{check.source.key}.data_prefix.{key}'
        if not isinstance(prefix.get(key), str):
            text = f'{place} must name a folder; data_prefix names {some(prefix) or "nothing"}'
            check.error(Harm.FAILS, 'folder not named', text)
        elif not os.path.isdir(path := os.path.join(check.source.cfg.get('data_root') or '', prefix[key])):
            text = f'there is no folder {path}, which {place} names (working folder: {os.getcwd()})'
            check.error(Harm.FAILS, 'folder missing', text)
        else:
            continue
        good = False
    return good


def _classes_fit(check: MaskCheck) -> bool:
    known = getattr(class_of(DATASETS, check.source.cfg), 'METAINFO', {}).get('classes')
    classes = (check.source.cfg.get('metainfo') or {}).get('classes')
    place = f'{check.source.key}.metainfo.classes'
    if isinstance(classes, str):
        if os.path.isfile(classes):
            return True
        text = f'{place} is the text {classes!r}, every character of it would be a class: write ({classes!r},)'
        check.error(Harm.WRONG, 'classes', text)
    elif not classes and not known:
        text = f'{place} is missing: name the classes in the order of the values in the masks'
        check.error(Harm.FAILS, 'classes', text)
    elif twice := [name for name, count in Counter(classes or ()).items() if count > 1]:
        check.error(Harm.WRONG, 'classes', f'{place} names {some(twice)} more than once')
    elif known and (foreign := [name for name in classes or () if name not in known]):
        text = (
            f'{place} names {some(foreign)}, which {check.source.cfg["type"]} does not have: for classes of your '
            "own set type='BaseSegDataset', and img_suffix, seg_map_suffix and reduce_zero_label as your files are"
        )
        check.error(Harm.FAILS, 'classes', text, len(foreign))
    else:
        return True
    return False


def _settings_fit(check: MaskCheck, settings: BaseSegDataset) -> bool:
    key, good = check.source.key, True
    for name in ('img_suffix', 'seg_map_suffix'):
        if not isinstance(value := getattr(settings, name), str):
            check.error(Harm.WRONG, 'suffix', f"{key}.{name} is {value!r}, it must be one text, such as '.png'")
            good = False
    asked = None if check.loader is None else check.loader.get('reduce_zero_label')
    if asked is not None and asked != settings.reduce_zero_label:
        text = (
            f'{key}.reduce_zero_label is {settings.reduce_zero_label} and that of its LoadAnnotations {asked}: '
            f'set it to {asked} in the dataset and leave it out of LoadAnnotations'
        )
        check.error(Harm.FAILS, 'reduce_zero_label', text)
        good = False
    ignored = ignored_labels(check.source)
    if (given := check.source.cfg.get('ignore_index')) is not None and given not in ignored:
        text = (
            f'{key}.ignore_index is {given}, which nothing reads, and {some(sorted(ignored))} is ignored: set '
            'ignore_index in model.decode_head, model.auxiliary_head and the evaluators'
        )
        check.error(Harm.WRONG, 'ignore_index', text)
        good = False
    if settings.ann_file and not os.path.exists(settings.ann_file):
        check.error(Harm.FAILS, 'list missing', f'there is no file {settings.ann_file}, which {key}.ann_file names')
        good = False
    return good


def _names(check: MaskCheck, folders: MaskFolders) -> list[str]:
    """Reports images and masks that do not belong together. Returns the names of those that do."""
    try:
        names = folders.names
    except UnicodeDecodeError:
        text = f'{folders.ann_file}, which {check.source.key}.ann_file names, is no text in UTF-8'
        check.error(Harm.FAILS, 'list unreadable', text)
        return []
    without_image = [name for name in names if folders.ann_file and not os.path.isfile(folders.image(name))]
    for name in without_image:
        text = (
            f'line {names.index(name) + 1} of {folders.ann_file} is {name!r} and there is no image '
            f'{folders.image(name)}: a line names an image below its folder, without img_suffix'
        )
        check.error(Harm.FAILS, 'image missing', text)
    if not names:
        _report_no_images(check, folders)
    elif not folders.ann_file:
        _report_unused(check, folders)
    check.note('images that the list names again', len(names) - len(set(names)))
    names = sorted(set(names) - set(without_image))
    if check.loader is None:
        return names
    without_mask = [name for name in names if not os.path.isfile(folders.mask(name))]
    suffix = suffix_of_all(without_mask, folders.masks)
    for name in without_mask:
        way_out = 'add it, or take the image out'
        if suffix is not None:
            way_out = f'there is {name + suffix}, rename it or set {check.source.key}.seg_map_suffix'
        text = f'{folders.image(name)} has no mask {folders.mask(name)}: {way_out}'
        check.error(Harm.FAILS, 'mask missing', text)
    if not folders.ann_file:
        check.note('masks without an image', len(folders.masks_without_image()))
    return sorted(set(names) - set(without_mask))


def _report_no_images(check: MaskCheck, folders: MaskFolders) -> None:
    if folders.ann_file:
        text = f'{folders.ann_file}, which {check.source.key}.ann_file names, is empty'
    else:
        endings = Counter(os.path.splitext(image)[1] for image in folders.images)
        found = ', '.join(f'{count} end in {ending!r}' for ending, count in endings.most_common(3))
        text = (
            f'no file in {folders.img_path} ends in {folders.img_suffix!r} ({found or "there is no image"}): '
            f'set {check.source.key}.img_suffix'
        )
    check.error(Harm.FAILS, 'no images', text)


def _report_unused(check: MaskCheck, folders: MaskFolders) -> None:
    unused = folders.unused()
    for path in (lost := [path for path, has_mask in unused.items() if has_mask]):
        text = (
            f'{path} has a mask and is not used, as {len(lost)} of {len(folders.names) + len(lost)} images: names '
            f'must end in img_suffix, which is {folders.img_suffix!r}; give all images the same suffix, or use '
            'ConcatDataset with a dataset for each'
        )
        check.error(Harm.LOST, 'images left out', text)
    check.note('images with another suffix and without a mask, not used', len(unused) - len(lost))


def _headers(check: MaskCheck, paths: Sequence[str]) -> dict[str, Header]:
    loaders = [(cfg, class_of(TRANSFORMS, cfg)) for cfg in check.source.transforms()]
    loader = next((cfg for cfg, kind in loaders if issubclass(kind or object, LoadImageFromFile)), None)
    if loader is None:
        check.leave_out('headers of images, which no LoadImageFromFile loads')
        return {}
    headers = {}
    for path in paths:
        try:
            headers[path] = read_header(path)
        except ValueError as problem:
            text = f'{path}: {problem}; replace it, or take it out together with its mask'
            check.error(Harm.FAILS, 'image unreadable', text)
    deep = [path for path, header in headers.items() if header.mode.startswith(('I', 'F'))]
    check.note('images of more than 8 bits, which are loaded as 8', len(deep))
    if deep and (reason := too_dark(deep, check.source.transforms())):
        check.error(Harm.WRONG, 'images become black', f'{deep[0]}: {reason}')
    turned = sum(header.orientation > 1 for header in headers.values())
    check.note('images turned by their EXIF data, which masks must show turned too', turned)
    return headers


def _masks(
    check: MaskCheck, folders: MaskFolders, names: Sequence[str], headers: Mapping[str, Header]
) -> list[tuple[str, Values]]:
    """Reports formats and sizes. Returns path and values of each mask that has one number per pixel."""
    masks = []
    for name in names:
        try:
            mask = read_mask(folders.mask(name))
        except ValueError as problem:
            check.error(Harm.FAILS, 'mask unreadable', f'{folders.mask(name)}: {problem}; replace it')
            continue
        if header := headers.get(folders.image(name)):
            turned = ', as its EXIF data turn it' if header.orientation >= 5 else ''
            fits = check.size_fits(mask, folders.image(name), header.upright, turned)
            other = mask.pixels.shape[:2] != header.upright[::-1]
            check.note('masks of another size than their images, in the same proportions', fits and other)
        if _format_fits(check, mask):
            masks.append((mask.path, mask.values))
    return masks


def _format_fits(check: MaskCheck, mask: Mask) -> bool:
    by_cv2 = check.loader is not None and check.loader.get('imdecode_backend', 'pillow') == 'cv2'
    pillow = "set imdecode_backend='pillow' in LoadAnnotations"
    if mask.is_lossy:
        text = f'{mask.path} is a {mask.format} file, which changes numbers at borders: write masks as PNG'
        check.error(Harm.WRONG, 'lossy mask', text)
    elif mask.pixels.ndim == 3 or (mask.mode == 'P' and by_cv2):
        channels = f'{mask.pixels.shape[-1]} channels ({mask.mode})' if mask.pixels.ndim == 3 else 'a palette'
        way_out = f'{FIX}, with the colours in metainfo.palette' if mask.pixels.ndim == 3 else pillow
        text = f'{mask.path} has {channels}, expected is one number per pixel, that of the class; {way_out}'
        check.error(Harm.FAILS, 'colour mask', text)
    elif mask.mode == '1' and by_cv2:
        text = f'{mask.path} has 1 bit per pixel, which cv2 reads as 0 and 255: {pillow}'
        check.error(Harm.WRONG, 'binary masks', text)
    elif mask.pixels.dtype.kind == 'f':
        text = f'{mask.path} holds numbers with fractions ({mask.pixels.dtype}): write whole numbers, as PNG'
        check.error(Harm.WRONG, 'mask of fractions', text)
    else:
        return True
    return False


def _values(check: MaskCheck, masks: Sequence[tuple[str, Values]], values: MaskValues) -> None:
    found = {value for _, counts in masks for value in counts}
    for path, counts in masks:
        if unknown := values.unknown(counts):
            number = sum(counts[value] for value in unknown)
            text = (
                f'{path}: {number} pixels have the value {some(unknown)}, which stands for no class: {values}; '
                f'{values.way_out(found)}'
            )
            check.error(_harm(check, unknown, values), 'value without a class', text)
    if found == {0, 255} and len(values.classes) == 2 and values.labels.get(255, 0) is None:
        text = (
            f'all {len(masks)} masks hold 0 and 255 only, such as {masks[0][0]}: 255 is ignored, so that '
            f'{values.classes[1]!r}, which is 1, never occurs; {FIX}'
        )
        check.error(Harm.WRONG, 'binary masks', text, len(masks))
    elif len(values.classes) == 2 and values.labels.get(255, 0) is None:
        check.note('masks of 0 and 255 only, which is ignored', sum(counts.keys() == {0, 255} for _, counts in masks))


def _harm(check: MaskCheck, unknown: Sequence[int], values: MaskValues) -> Harm:
    """Losses die of a label without a class. Metrics do not, and 8 bits remain of larger values."""
    wraps = any(value > 255 for value in unknown)
    return Harm.FAILS if check.source.split == 'train' and not wraps else Harm.WRONG
