"""No evaluation of weights that were drawn at random."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .checkpoint import CheckpointError, compare, likely_cause
from .conversion import unwrap


@HOOKS.register_module()
class CompleteCheckpointHook(Hook):
    """Refuses a checkpoint that does not fill the whole model; MMEngine by itself logs a warning and goes on.

    Tensors that the model has no use for do no harm.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Raises :class:`mmcv_custom.checkpoint.CheckpointError`, before any weight is loaded."""
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        own = model.state_dict()
        state = {name.removeprefix('module.'): tensor for name, tensor in unwrap(checkpoint).items()}
        report = compare(own, state)
        if report.missing or report.misshaped:
            raise CheckpointError(
                f'{runner._load_from} does not fill {type(model).__name__}: {likely_cause(state, own, report)}'
            )
