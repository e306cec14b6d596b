# InternImage-T, pre-trained on ImageNet-1K.
_base_ = '../checkpoints.py'
pretrained = dict(type='Pretrained', checkpoint=_base_.checkpoints + 'internimage_t_1k_224.pth')
backbone = dict(type='InternImage', arch='tiny', drop_path_rate=0.2, init_cfg=pretrained)
channels = [64, 128, 256, 512]
