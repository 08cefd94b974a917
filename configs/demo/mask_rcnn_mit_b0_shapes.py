"""Mask R-CNN with MiT-B0 on generated landscapes, from scratch: a few minutes on two CPU cores.

Data: densevit make-demo-data detection --root data/demo
"""

_base_ = ["../_base_/shapes_detection.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mit_b0", drop_path=0.0),
    neck=dict(type="FPN", out_channels=64, num_outs=4),
    head=dict(
        type="MaskRCNNHead",
        num_classes=5,
        anchor_scales=(4.0,),  # sides of 16 to 128 pixels
        rpn_channels=64,
        roi_samples=64,
        fc_channels=256,
        mask_channels=32,
        mask_convs=2,
    ),
)
train_dataloader = dict(dataset=dict(masks=True))
val_dataloader = dict(dataset=dict(masks=True))
test_dataloader = val_dataloader
