"""Optimizer, learning rates and length of an old config, in MMEngine's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from .comparison import brief, same
from .hooks import counts_as_here, evaluator_of, hooks_of

# The parts of an old config that are read here. What a reader carries over it takes out; the rest is noted.
PARTS = ('optimizer_config', 'runner', 'evaluation', 'checkpoint_config', 'log_config', 'fp16', 'auto_scale_lr')
# Types that say nothing: a run here has what they stand for.
USUAL = {
    'runner': ('EpochBasedRunner', 'IterBasedRunner'),
    'optimizer_config': ('OptimizerHook', 'GradientCumulativeOptimizerHook'),
}


def settings_of(content: Mapping[str, Any], cfg: Config, notes: list[str]) -> dict[str, Any]:
    """What an old config says about training that the model's config here says otherwise.

    Args:
        content: The old config.
        cfg: The model's config.
        notes: Gets what is not carried over.
    """
    content = {**content, **{name: dict(content.get(name) or {}) for name in PARTS}}
    length = _length(content, cfg, notes)
    found: dict[str, Any] = dict(
        optim_wrapper=_optimizer(content, cfg),
        param_scheduler=_schedulers(content, cfg, length, notes),
        train_cfg=_loop(content, cfg, length),
        default_hooks=hooks_of(content, cfg, notes),
        val_evaluator=evaluator_of(content['evaluation'], cfg),
    )
    found.update({key: content[key] for key in ('load_from', 'work_dir') if content.get(key)})
    notes += [key for key in ('custom_hooks', 'resume_from') if content.get(key)]
    step = content['auto_scale_lr'].pop('base_batch_size', None)
    if step and step != cfg.get('auto_scale_lr', {}).get('base_batch_size'):
        found['auto_scale_lr'] = dict(base_batch_size=step)
    if content.get('seed') is not None:
        found['randomness'] = dict(seed=content['seed'])
    for part in PARTS:
        if content[part].get('type') in USUAL.get(part, ()):
            del content[part]['type']
        notes += [brief(f'{part}.{key}', value) for key, value in content[part].items()]
    return {key: value for key, value in found.items() if value}


def _optimizer(content: Mapping[str, Any], cfg: Config) -> dict[str, Any]:
    old, new = dict(content.get('optimizer') or {}), cfg.optim_wrapper
    settings: dict[str, Any] = {}
    constructor = old.pop('constructor', None if 'type' in old else new.get('constructor'))
    paramwise = dict(old.pop('paramwise_cfg', None) or {})
    for derived in ('num_layers', 'depths'):  # read from the model here
        paramwise.pop(derived, None)
    old.pop('lr', None)  # see Translation.lr
    if old.get('type', new.optimizer.type) != new.optimizer.type:
        settings['optimizer'] = dict(_delete_=True, **old)
    elif changed := {key: value for key, value in old.items() if not same(new.optimizer.get(key), value)}:
        settings['optimizer'] = changed
    ours = {'offset_lr_scale': 1.0, 'layer_decay_rate': 1.0, **new.get('paramwise_cfg', {})}
    if old and constructor != new.get('constructor'):
        settings['constructor'] = constructor or 'DefaultOptimWrapperConstructor'
        settings['paramwise_cfg'] = dict(_delete_=True, **paramwise)
    elif changed := {key: value for key, value in paramwise.items() if not same(ours.get(key), value)}:
        settings['paramwise_cfg'] = changed
    config = content['optimizer_config']
    if 'grad_clip' in config and not same(clip := config.pop('grad_clip'), new.get('clip_grad')):
        settings['clip_grad'] = clip
    for steps in ('cumulative_iters', 'update_interval'):
        if (count := config.pop(steps, 1)) > 1:
            settings['accumulative_counts'] = count
    return settings


def _length(content: Mapping[str, Any], cfg: Config, notes: list[str]) -> int | None:
    """Epochs or iterations, whichever the model's config counts; ``None`` if the old config says nothing."""
    runner = content['runner']
    counts = dict(max_epochs=runner.pop('max_epochs', content.get('total_epochs')))
    counts['max_iters'] = runner.pop('max_iters', content.get('total_iters'))
    counted = 'max_iters' if 'max_iters' in cfg.train_cfg else 'max_epochs'
    (other,) = counts.keys() - {counted}
    if counts[other] and not counts[counted]:
        notes.append(f'runner ({other}={counts[other]}: the model here counts {counted.removeprefix("max_")})')
    return counts[counted]


def _loop(content: Mapping[str, Any], cfg: Config, length: int | None) -> dict[str, Any]:
    counted = 'max_iters' if 'max_iters' in cfg.train_cfg else 'max_epochs'
    wanted, evaluation = {counted: length}, content['evaluation']
    if counts_as_here(evaluation, cfg):
        wanted['val_interval'] = evaluation.pop('interval', None)
    return {key: value for key, value in wanted.items() if value and value != cfg.train_cfg.get(key)}


def _schedulers(content: Mapping[str, Any], cfg: Config, length: int | None, notes: list[str]) -> list[dict[str, Any]]:
    """The schedulers, if they differ from those of the model's config."""
    old = dict(content.get('lr_config') or {})
    by_epoch = 'max_iters' not in cfg.train_cfg
    present: list[dict[str, Any]] = [dict(entry) for entry in cfg.param_scheduler]
    end = length or cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters
    if not old:
        longer = [
            dict(entry, end=end) if entry.get('by_epoch', True) == by_epoch and 'milestones' not in entry else entry
            for entry in present
        ]
        if length and 'milestones' in present[-1] and end != present[-1]['end']:
            notes.append(
                f'lr_config, which is missing: the learning rate falls at {present[-1]["milestones"]}, as before'
            )
        return longer if not same(longer, present) and not by_epoch else []
    schedulers = []
    if warm_up := old.pop('warmup', None):
        kind = 'ConstantLR' if warm_up == 'constant' else 'LinearLR'
        schedulers.append(
            {
                'type': kind,
                ('factor' if kind == 'ConstantLR' else 'start_factor'): old.pop('warmup_ratio', 0.1),
                'by_epoch': bool(old.pop('warmup_by_epoch', False)),
                'begin': 0,
                'end': old.pop('warmup_iters', 0),
            }
        )
        if warm_up == 'exp':
            notes.append('lr_config.warmup=exp (a linear one is used)')
    policy, by_epoch = str(old.pop('policy', 'fixed')).lower(), bool(old.pop('by_epoch', by_epoch))
    common: dict[str, Any] = dict(by_epoch=by_epoch, begin=0, end=end)
    if policy == 'step':
        milestones = old.pop('step', [])
        if isinstance(milestones, int):
            schedulers.append(dict(type='StepLR', step_size=milestones, gamma=old.pop('gamma', 0.1), **common))
        else:
            schedulers.append(
                dict(type='MultiStepLR', milestones=list(milestones), gamma=old.pop('gamma', 0.1), **common)
            )
    elif policy == 'poly':
        schedulers.append(dict(type='PolyLR', power=old.pop('power', 1.0), eta_min=old.pop('min_lr', 0.0), **common))
    elif policy == 'cosineannealing':
        least = (
            dict(eta_min=old.pop('min_lr'))
            if old.get('min_lr') is not None
            else dict(eta_min_ratio=old.pop('min_lr_ratio', 0.0))
        )
        old.pop('min_lr_ratio', None)
        schedulers.append(dict(type='CosineAnnealingLR', T_max=end, **least, **common))
    elif policy != 'fixed':
        notes.append(f'lr_config.policy={policy}')
        return []
    notes += [f'lr_config.{key}' for key in old if key not in ('warmup_iters', 'warmup_ratio')]  # of no warm-up
    return [] if same(schedulers, present) else schedulers
