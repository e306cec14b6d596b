"""Puts the results of the benchmarks into docs/performance.md.

    python benchmarks/report.py            # the tables, from the files in docs/performance
    python benchmarks/report.py --run cpu  # first runs the page's commands that contain "cpu", which takes a while

A command of the page that writes results (``--json``) is followed by a block between two comments. What stands there is
replaced; all other text is written by hand.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import measure

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'performance.md'
COMMAND = r'(?P<command>python benchmarks/[^\n]*--json (?P<file>\S+))'
BLOCK = re.compile(rf'(?P<head>{COMMAND}\n```\n\n<!-- results -->\n).*?(?=<!-- end -->)', re.DOTALL)


def render(page: str) -> str:
    """The page with every block as its file of results has it."""
    return BLOCK.sub(lambda match: match['head'] + block(ROOT / match['file']), page)


def block(path: Path) -> str:
    """Where and when a benchmark ran, and its tables."""
    if not path.exists():
        return 'Not run yet.\n'
    result = json.loads(path.read_text())
    tables = importlib.import_module(result['benchmark']).tables(result['rows'])
    return '\n\n'.join([f'{result["machine"]}; {result["date"]}.', *map(measure.markdown, tables)]) + '\n'


def commands(page: str) -> Iterator[str]:
    """The commands that make the page's results."""
    return (match['command'] for match in BLOCK.finditer(page))


def main() -> None:
    parser = argparse.ArgumentParser(description='Puts the results of the benchmarks into docs/performance.md.')
    parser.add_argument('--run', metavar='TEXT', help='run the commands of the page that contain this text')
    args = parser.parse_args()
    page = PAGE.read_text()
    if args.run is not None:
        environment = os.environ | {'PYTHONPATH': str(ROOT)}
        for command in commands(page):
            if args.run in command:
                print(f'$ {command}', flush=True)
                subprocess.run([sys.executable, *shlex.split(command)[1:]], cwd=ROOT, env=environment, check=True)
    PAGE.write_text(render(page))


if __name__ == '__main__':
    main()
