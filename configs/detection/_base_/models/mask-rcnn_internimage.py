# Mask R-CNN on InternImage. A config on top of this names the backbone and the widths of its stages.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
model = dict(backbone=dict(_delete_=True, type='InternImage'))
