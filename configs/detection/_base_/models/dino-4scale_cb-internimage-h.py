# DINO with four feature levels on two InternImage-H.
_base_ = 'dino-4scale_internimage.py'
model = dict(
    type='CBDINO',
    # The published results are with factors in half precision.
    backbone=dict(type='CBInternImage', arch='huge', drop_path_rate=0.5, with_cp=True, half_gammas=True),
    # A list, because the names in the published checkpoints begin with neck.0.
    neck=[dict(_base_.model.neck, type='CBChannelMapper', in_channels=[640, 1280, 2560])],
    dn_cfg=dict(group_cfg=dict(num_dn_queries=1000)),
)
