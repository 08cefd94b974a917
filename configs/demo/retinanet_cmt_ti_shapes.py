"""RetinaNet with CMT-Ti on generated landscapes, from scratch: a few minutes on two CPU cores.

Data: densevit make-demo-data detection --root data/demo
"""

_base_ = ["../_base_/shapes_detection.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="cmt_ti", drop_path=0.0),
    neck=dict(type="FPN", out_channels=64, start_level=1),
    head=dict(type="RetinaHead", num_classes=5, channels=64, num_convs=2, anchor_scale=2.0),
)
