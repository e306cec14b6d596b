# InternImage-XL, pre-trained on ImageNet-22K.
_base_ = '../checkpoints.py'
pretrained = dict(type='Pretrained', checkpoint=_base_.checkpoints + 'internimage_xl_22k_192to384.pth')
backbone = dict(type='InternImage', arch='xlarge', drop_path_rate=0.4, init_cfg=pretrained)
channels = [192, 384, 768, 1536]
