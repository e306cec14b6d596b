# Cascade R-CNN on InternImage, boxes only. A config on top of this names the backbone and the widths of its stages.
_base_ = 'mmdet::_base_/models/cascade-rcnn_r50_fpn.py'
model = dict(backbone=dict(_delete_=True, type='InternImage'))
