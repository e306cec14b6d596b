# InternImage-T and the optimizer of its published segmentors. A config on top of this places it in a model.
checkpoints = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/'
backbone = dict(
    type='InternImage',
    arch='tiny',
    drop_path_rate=0.2,
    init_cfg=dict(type='Pretrained', checkpoint=checkpoints + 'internimage_t_1k_224.pth'),
)
in_channels = [64, 128, 256, 512]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='CustomLayerDecayOptimizerConstructor',
    paramwise_cfg=dict(layer_decay_rate=1.0),
)
