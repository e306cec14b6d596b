"""Opens files through the entrances, with a limit on memory, and prints what came of each as a line of JSON.

python -m tests.hostile.entrances JOBS

JOBS is a JSON file: a list of an entrance and its files, and so on. A line holds entrance, file, outcome and text.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import resource
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger

from mmcv_custom import InternImage
from mmcv_custom.checkpoint import CheckpointError, load_safely
from tests.hostile.assembler import CANARY
from tests.mmcv.tiny_training import runner
from tests.support import CONFIGS

MEMORY = 3 * 2**29  # bytes above what the program takes by itself


def load_from() -> Callable[[str], Any]:
    return runner(Path('load_from'), 1).load_checkpoint


def resume() -> Callable[[str], Any]:
    return runner(Path('resume'), 1).resume


def test() -> Callable[[str], Any]:
    tester = runner(Path('test'), 1, custom_hooks=[dict(type='CompleteCheckpointHook')])

    def enter(file: str) -> None:
        tester._load_from, tester._has_loaded = file, False
        tester.load_or_resume()

    return enter


def tiny_backbone() -> InternImage:
    return InternImage(channels=16, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8), core_op='DCNv3_pytorch')


def init_cfg() -> Callable[[str], Any]:
    model = tiny_backbone()

    def enter(file: str) -> None:
        model._is_init = False
        model.init_cfg = dict(type='Pretrained', checkpoint=file)
        model.init_weights()

    return enter


def convert() -> Callable[[str], Any]:
    from tools import convert_checkpoint

    def enter(file: str) -> None:
        sys.argv = ['convert_checkpoint.py', file, 'converted.pth']
        convert_checkpoint.main()

    return enter


def detector_config() -> Config:
    cfg = Config.fromfile(CONFIGS / 'demo/mask-rcnn_digits.py')
    cfg.model.backbone.init_cfg = None
    return cfg


def det_inferencer() -> Callable[[str], Any]:
    from mmdet.apis import DetInferencer

    cfg = detector_config()
    return lambda file: DetInferencer(cfg.copy(), file, device='cpu')


def det_inferencer_without_config() -> Callable[[str], Any]:
    from mmdet.apis import DetInferencer

    return lambda file: DetInferencer(weights=file, device='cpu')


def init_detector() -> Callable[[str], Any]:
    from mmdet.apis import init_detector

    cfg = detector_config()
    return lambda file: init_detector(cfg, file, device='cpu')


ENTRANCES: dict[str, Callable[[], Callable[[str], Any]]] = {
    'load_safely': lambda: load_safely,
    'load_from': load_from,
    'resume': resume,
    'test': test,
    'init_cfg': init_cfg,
    'convert': convert,
    'DetInferencer': det_inferencer,
    'DetInferencer without config': det_inferencer_without_config,
    'init_detector': init_detector,
}


def outcome(enter: Callable[[str], Any], file: str) -> tuple[str, str]:
    """What happened: ``'loaded'``, ``'refused'`` in one line, ``'ran'`` code of the file, or the name of an error."""
    try:
        enter(file)
        found = 'loaded', ''
    except (CheckpointError, FileNotFoundError) as error:
        found = 'refused', str(error)
    except SystemExit as error:
        found = ('refused' if str(error).startswith('error: ') else 'left'), str(error)
    except BaseException as error:  # each must be reported
        found = type(error).__name__, str(error)
    if Path(CANARY).exists():
        Path(CANARY).unlink()
        found = 'ran', found[1]
    return found


def main(jobs: list[tuple[str, list[str]]]) -> None:
    faulthandler.enable()
    warnings.simplefilter('ignore')
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    enter = {entrance: ENTRANCES[entrance]() for entrance in dict(jobs)}
    size = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    for entrance, files in jobs:
        for file in files:
            print(json.dumps([entrance, Path(file).name, *outcome(enter[entrance], file)]), flush=True)


if __name__ == '__main__':
    main(json.loads(Path(sys.argv[1]).read_text()))
