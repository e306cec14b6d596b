# InternImage-H, pre-trained on 427 million images, then on ImageNet-22K.
_base_ = '../checkpoints.py'
pretrained = dict(type='Pretrained', checkpoint=_base_.checkpoints + 'internimage_h_jointto22k_384.pth')
backbone = dict(type='InternImage', arch='huge', drop_path_rate=0.5, init_cfg=pretrained)
channels = [320, 640, 1280, 2560]
