"""A terminal without what libraries print for their own developers."""

from __future__ import annotations

import re
import sys
import warnings
from typing import Any, TextIO

# Warnings that are not about the user's run: module and text.
WARNINGS = (
    (r'mmdet\.evaluation\.metrics\.faster_coco_metric', 'faster_coco_eval is not installed'),
    (r'mmengine\.model\.wrappers\.distributed', '`broadcast_buffers` is deprecated'),
    (r'mmengine\.utils\.dl_utils\.setup_env', r'Setting \w+_NUM_THREADS environment variable'),
    (r'mmseg\.models\.losses\.cross_entropy_loss', 'Default ``avg_non_ignore`` is False'),
    (r'torch\.autograd\.graph', 'Grad strides do not match bucket view strides'),
    (r'torch\.functional', r'torch\.meshgrid: in an upcoming release'),
)
# Log messages that the log file keeps.
LOGGED = re.compile(
    r'\n-+\nSystem environment:'
    r'|Config:\n'
    r'|Hooks will be executed in the following order'
    r'|Distributed training is not used, all SyncBatchNorm'
    r'|\d+ parameter groups; '
    r'|"FileClient" will be deprecated'
    r'|"HardDiskBackend" is the alias'
    r'|The prefix is not set in metric class'
    r'|Checkpoints will be saved to'
    r'|Exp name: '
    r'|\S+ - compute_metrics - \d+ - The testing results of the whole dataset is empty'  # the tools say it
)
# Printed lines: those of pycocotools around its tables, and of mmdet and mmseg when they are imported.
PRINTED = re.compile(
    r'(loading annotations into memory\.\.\.'
    r'|Loading and preparing results\.\.\.'
    r'|(Done|DONE) \(t=[\d.]+s\)\.?'
    r'|creating index\.\.\.'
    r'|index created!'
    r'|Running per image evaluation\.\.\.'
    r'|Evaluate annotation type \*\w+\*'
    r'|Accumulating evaluation results\.\.\.'
    r'|Could not import OneDL.*)\n'
)
RECORD = re.compile(r'\d\d/\d\d [\d:]{8} - \S+ - (\S+) - ')  # how MMEngine begins what it logs
MISMATCH = 'The model and loaded state dict do not match exactly'  # MMEngine, before the names of thousands of tensors
LONGEST = 300  # characters of such a list


class QuietStream:
    """A text stream that drops known noise and passes everything else on, lines as soon as they are complete."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begun = ''  # a line that has no end yet

    def write(self, text: str) -> int:
        """Takes a part of a line, or the whole text of a log record."""
        self._begun += text
        if self._begun.endswith('\n'):
            self._pass_on()
        return len(text)

    def flush(self) -> None:
        """Passes on what is there, also if its line has no end yet."""
        self._pass_on()
        self._stream.flush()

    def _pass_on(self) -> None:
        text, self._begun = self._begun, ''
        self._stream.write(without_noise(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def without_noise(text: str) -> str:
    """A printed line, or a log record, as the user sees it: empty if it is noise."""
    record = RECORD.match(text)
    noise = LOGGED.match(text, record.end()) if record else PRINTED.fullmatch(text)
    if noise:
        return ''
    begin = record.end() if record else 0
    if text.startswith(MISMATCH, begin) and len(text) > begin + LONGEST:
        return f'{text[: begin + LONGEST]} ... (--debug prints all of it)\n'
    return text


def quiet_terminal(debug: bool = False) -> None:
    """From now on this program prints no known noise, unless ``debug``. Log files are as before.

    To be called before the config is read, which imports libraries.
    """
    if debug:
        return
    for module, text in WARNINGS:
        warnings.filterwarnings('ignore', text, module=module)
    if sys.stdout is not None:  # it is where the program was started with it closed
        sys.stdout = QuietStream(sys.stdout)
