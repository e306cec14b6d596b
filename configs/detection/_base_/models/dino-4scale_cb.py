# DINO with four feature levels on a composite backbone.
_base_ = 'dino-4scale.py'
model = dict(
    type='CBDINO',
    # A list, because the names in the published checkpoints begin with neck.0.
    neck=[dict(_base_.model.neck, type='CBChannelMapper')],
    dn_cfg=dict(group_cfg=dict(num_dn_queries=1000)),
)
