"""What the tools share: arguments, configs, and one clear line for a user's mistake."""

from .arguments import (
    Overrides,
    Parser,
    add_config_arguments,
    check_output_file,
    existing_file,
    make_folder,
    new_folder,
    new_parser,
)
from .configs import (
    check_config,
    check_initial_weights,
    check_kinds,
    check_outputs,
    check_paths,
    load_config,
    newest_checkpoint,
    read_config,
    use_tta,
)
from .data import check_data, print_errors
from .messages import did_you_mean, fail, table, user_errors_in_one_line
from .pictures import draw_samples
from .running import build_runner, mistakes_in_one_line

__all__ = [
    'Overrides',
    'Parser',
    'add_config_arguments',
    'build_runner',
    'check_config',
    'check_data',
    'check_paths',
    'check_initial_weights',
    'check_kinds',
    'check_output_file',
    'check_outputs',
    'user_errors_in_one_line',
    'did_you_mean',
    'draw_samples',
    'existing_file',
    'fail',
    'load_config',
    'make_folder',
    'mistakes_in_one_line',
    'new_folder',
    'new_parser',
    'newest_checkpoint',
    'print_errors',
    'read_config',
    'table',
    'use_tta',
]
