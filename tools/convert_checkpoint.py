"""Convert an official detector or segmentor (mmdet 2, mmseg 0) for mmdet 3 and mmseg 1.

python tools/convert_checkpoint.py mask_rcnn_internimage_t_fpn_1x_coco.pth converted.safetensors \\
    --config configs/detection/coco/mask-rcnn_internimage-t_fpn_1x_coco.py
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from safetensors.torch import save_file
from torch import Tensor

from mmcv_custom.checkpoint import (
    SAFETENSORS_META,
    CheckpointError,
    Conversion,
    compare,
    convert,
    convert_checkpoint,
    differences,
    load_safely,
    mmengine_form,
)
from mmcv_custom.checkpoint.errors import redacted
from mmcv_custom.checkpoint.filling import require_finite, require_numbers
from mmcv_custom.cli import (
    Parser,
    check_output_file,
    existing_file,
    fail,
    mistakes_in_one_line,
    read_config,
    user_errors_in_one_line,
)

SUFFIXES = ('.pth', '.safetensors')
BUFFERS = ('running_mean', 'running_var', 'num_batches_tracked')  # all that these models save


def main() -> None:
    parser = Parser(description='Convert an official detector or segmentor for mmdet 3 and mmseg 1.')
    parser.add_argument('source', help='file or URL')
    parser.add_argument('target', type=Path, help='file to write, .pth or .safetensors')
    parser.add_argument('--config', help='config whose model the weights must fill, tensor for tensor')
    parser.add_argument('--force', action='store_true', help='overwrite the target')
    parser.add_argument('--debug', action='store_true', help='print the traceback of every error')
    args = parser.parse_args()
    if args.target.suffix not in SUFFIXES:
        fail(f'the file to write must end in {" or ".join(SUFFIXES)}, got {args.target}')
    if os.path.exists(args.target) and not args.force:
        fail(f'{args.target} exists already; --force overwrites it')
    if os.path.exists(args.target) and not os.path.isfile(args.target):
        fail(f'{args.target} is no regular file: name another')
    existing_file(args.source, 'checkpoint')
    cfg = None if args.config is None else read_config(args.config, debug=args.debug)
    check_output_file(str(args.target), 'file to write')

    with user_errors_in_one_line():
        conversion, meta = read(args.source)
        print(conversion.summary())
        print(table(conversion))
        if cfg is None:
            parameters = [name for name in conversion.state_dict if not name.endswith(BUFFERS)]
            require_finite(parameters, conversion.state_dict, redacted(args.source))
        else:
            meta['cfg'] = cfg.pretty_text
            with mistakes_in_one_line(cfg, args.debug):
                check(conversion.state_dict, cfg, redacted(args.source))
            print(f'fits the model of {args.config}')
        try:
            write(args.target, conversion.state_dict, meta)
        except OSError as error:
            fail(f'cannot write {args.target}: {error}')
    print(f'wrote {args.target}')


def read(source: str) -> tuple[Conversion, dict[str, Any]]:
    """The converted model in a file, and what MMEngine's files say in ``meta``.

    A config in the file is left out: MMEngine would run it as a program.
    """
    try:
        checkpoint, conversion = convert_checkpoint(mmengine_form(load_safely(source)))
        if conversion is None:  # of the new form, or of none that we know
            conversion = convert(checkpoint['state_dict'])
    except (ValueError, FileNotFoundError) as error:
        raise CheckpointError(f'cannot convert {redacted(source)}: {error}') from error
    kept = {key: value for key, value in checkpoint['meta'].items() if key == 'dataset_meta'}
    return conversion, {'mmengine_version': mmengine.__version__, 'converted_from': Path(redacted(source)).name, **kept}


def table(conversion: Conversion) -> str:
    """Tensors, parameters and renamed tensors of each module of the model."""
    changed = {*conversion.renamed.values(), *conversion.merged}
    rows = [('module', 'tensors', 'parameters', 'renamed')]
    modules = dict.fromkeys(name.split('.')[0] for name in conversion.state_dict)
    for module in [*modules, 'in all']:
        names = [name for name in conversion.state_dict if module in ('in all', name.split('.')[0])]
        parameters = sum(conversion.state_dict[name].numel() for name in names if not name.endswith(BUFFERS))
        rows.append((module, f'{len(names):,}', f'{parameters:,}', f'{len(changed.intersection(names)):,}'))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join('  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)


def check(state: Mapping[str, Tensor], cfg: Config, source: str) -> None:
    """Checks that names and shapes are those of the config's model, and that the weights are proper numbers.

    Raises:
        CheckpointError: They are not, or there is no model.
    """
    if not isinstance(cfg.get('model'), dict):
        raise CheckpointError(f'{cfg.filename} holds no model to check the weights against')
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    with torch.device('meta'):  # shapes only: no time and no memory for values
        model = MODELS.build(cfg.model)
    own = model.state_dict()
    found = differences(state, own, compare(own, state))
    if found:
        raise CheckpointError(f'the weights are not those of the model of {cfg.filename}: {found}')
    require_numbers(own, state, source)
    require_finite(dict(model.named_parameters()), state, source)


def write(target: Path, state: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Writes a checkpoint that MMEngine loads; under its name there is never a part of it.

    Raises:
        CheckpointError: A ``.safetensors`` file cannot hold this ``meta``, or a dtype.
        OSError: It cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f'.{target.name}.{os.getpid()}')
    draft.touch()
    mode = draft.stat().st_mode
    try:
        if target.suffix == '.safetensors':
            uses = Counter(tensor.untyped_storage().data_ptr() for tensor in state.values())  # tied ones are copied
            tensors = {
                name: tensor.clone() if uses[tensor.untyped_storage().data_ptr()] > 1 else tensor
                for name, tensor in state.items()
            }
            contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
            save_file(contiguous, draft, {'format': 'pt', SAFETENSORS_META: as_json(meta)})
        else:
            torch.save({'meta': meta, 'state_dict': state}, draft)
        draft.chmod(mode)  # safetensors leaves files that only their owner can read
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def as_json(meta: dict[str, Any]) -> str:
    try:
        return mmengine.dump(meta, file_format='json')
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f'a .safetensors file cannot hold the dataset_meta of this checkpoint ({error}): write a .pth file'
        ) from error


if __name__ == '__main__':
    main()
