"""The command ``mm-internimage``, also ``python -m mmcv_custom``: runs tools and finds configs of an installation.

mm-internimage train CONFIG ...    what python tools/train.py CONFIG ... does in a clone; so for every tool
mm-internimage path NAME           the path of a config of the model zoo, for OpenMMLab's own tools
mm-internimage list [WORD ...]     the models of the zoo whose names contain all the words
"""

from __future__ import annotations

import runpy
import sys

from . import zoo
from .cli import fail

TOOLS = (zoo.MIM / 'tools').resolve()  # links in a checkout


def main() -> None:
    """Runs the command in ``sys.argv``; a user's mistake ends the program with one line and exit code 1."""
    command, *arguments = sys.argv[1:] or ['--help']
    programs = (path for path in sorted(TOOLS.rglob('*.py')) if '__main__' in path.read_text())
    tools = {path.relative_to(TOOLS).with_suffix('').as_posix(): path for path in programs}
    if command in tools:
        sys.argv = [str(tools[command]), *arguments]
        sys.path.insert(0, str(tools[command].parent))  # as Python does for a script
        runpy.run_path(sys.argv[0], run_name='__main__')
    elif command == 'list':
        names = [name for name in zoo.models() if all(word.lower() in name for word in arguments)]
        print('\n'.join(names) or fail(f'no name of a model contains {" and ".join(arguments)}; list names all'))
    elif command == 'path' and len(arguments) == 1:
        try:
            print(zoo.find(arguments[0]).config)
        except zoo.UnknownModelError as problem:
            fail(str(problem))
    elif command == 'path':
        fail(f'path needs one name, got {len(arguments)}')
    elif command in ('-h', '--help'):
        print(f'{__doc__}\nTools: {", ".join(tools)}')
    else:
        fail(f'there is no command {command!r}; expected path, list or a tool: {", ".join(tools)}')


if __name__ == '__main__':
    main()
