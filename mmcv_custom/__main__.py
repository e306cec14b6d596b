"""The command ``mm-internimage``, also ``python -m mmcv_custom``: runs the tools of an installed package.

mm-internimage train CONFIG ...    the same as python tools/train.py CONFIG ... in a clone; any tool by its name
mm-internimage path NAME           where a config of the model zoo is, for OpenMMLab's own tools
mm-internimage list [WORD ...]     the models of the zoo whose names hold all the words
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from . import zoo
from .cli import fail

TOOLS = Path(__file__).with_name('.mim') / 'tools'


def main() -> None:
    command, *arguments = sys.argv[1:] or ['--help']
    tools = sorted(path.stem for path in TOOLS.glob('*.py'))
    if command in ('-h', '--help'):
        print(f'{__doc__}\nTools: {", ".join(tools)}')
    elif command == 'path':
        if len(arguments) != 1:
            fail(f'expected mm-internimage path NAME, got {len(arguments)} names')
        try:
            print(zoo.find(arguments[0]).config)
        except zoo.UnknownModelError as problem:
            fail(str(problem))
    elif command == 'list':
        print('\n'.join(name for name in zoo.models() if all(word in name for word in arguments)))
    elif command in tools:
        sys.argv = [f'mm-internimage {command}', *arguments]
        runpy.run_path(str(TOOLS / f'{command}.py'), run_name='__main__')
    else:
        fail(f'there is no command {command!r}: expected path, list or one of the tools {", ".join(tools)}')


if __name__ == '__main__':
    main()
