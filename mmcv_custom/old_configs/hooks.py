"""Evaluation, checkpoints and log of an old config, in MMEngine's words."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from .comparison import as_list, brief, same

SCORES = ('bbox_mAP', 'segm_mAP')  # the beginnings of mmdet 2's names; mmdet 3 puts 'coco/' before them
DEFAULT_LOG = dict(type='TextLoggerHook')  # every run here logs to the terminal and to a file


def hooks_of(content: dict[str, dict[str, Any]], cfg: Config, notes: list[str]) -> dict[str, Any]:
    """Intervals of checkpoints and of the log, and which checkpoints stay. Takes the keys that it carries over."""
    checkpoint, log = content['checkpoint_config'], content['log_config']
    hooks = cfg.default_hooks
    new = {'interval': 1, 'max_keep_ckpts': -1, 'save_optimizer': True, **hooks.get('checkpoint', {})}
    wanted: dict[str, Any] = {}
    if counts_as_here(checkpoint, cfg):
        wanted = {
            key: checkpoint.pop(key) for key in ('interval', 'max_keep_ckpts', 'save_optimizer') if key in checkpoint
        }
    if (best := _best(content['evaluation'], cfg)) is not None:
        wanted['save_best'] = best
    found = dict(checkpoint={key: value for key, value in wanted.items() if not same(new.get(key), value)})
    if isinstance(log.get('interval'), int) and log['interval'] > 0:
        interval = log.pop('interval')
        found['logger'] = dict(interval=interval) if interval != hooks.get('logger', {}).get('interval', 10) else {}
    for hook in as_list(log.pop('hooks', [])):
        if not isinstance(hook, dict) or {**hook, 'by_epoch': True} != {**DEFAULT_LOG, 'by_epoch': True}:
            notes.append(brief('log_config.hooks', hook.get('type') if isinstance(hook, dict) else hook))
    return {name: changes for name, changes in found.items() if changes}


def evaluator_of(evaluation: dict[str, Any], cfg: Config) -> dict[str, Any]:
    """The evaluator's settings. Takes the keys that it carries over."""
    evaluation.pop('pre_eval', None)  # how mmseg 0 saves memory
    metric = evaluation.get('metric')
    if metric in ('mIoU', ['mIoU'], None) or same(as_list(metric), as_list(cfg.val_evaluator.get('metric'))):
        evaluation.pop('metric', None)
    if cfg.val_evaluator.type != 'CocoMetric':
        return {}
    found = {key: evaluation.pop(key) for key in ('metric', 'classwise') if key in evaluation}
    return {key: value for key, value in found.items() if value != cfg.val_evaluator.get(key, False)}


def counts_as_here(old: dict[str, Any], cfg: Config) -> bool:
    """Whether an interval counts epochs, or iterations, as the model's config does. Takes ``by_epoch`` if it does."""
    by_epoch = 'max_iters' not in cfg.train_cfg
    if old.get('by_epoch', by_epoch) == by_epoch:
        old.pop('by_epoch', None)
        return True
    return False


def _best(evaluation: dict[str, Any], cfg: Config) -> str | None:
    """The score that decides which checkpoint is the best, under its name here; ``None`` if there is none."""
    best = evaluation.get('save_best')
    if cfg.val_evaluator.type == 'CocoMetric' and str(best).startswith(SCORES):
        best = f'coco/{best}'
    elif best not in ('auto', *(('aAcc', 'mAcc', 'mIoU') if cfg.default_scope == 'mmseg' else ())):
        return None
    del evaluation['save_best']
    return best
