"""Semantic FPN on XCiT-S12/16, ADE20K, 32.2 M parameters.

The authors' repository (https://github.com/facebookresearch/xcit) states mIoU 43.9. Not trained by us.
From the ImageNet weights that they start from:
densevit train fpn_xcit_s12_p16_ade20k --weights xcit_small_12_p16_384_dist.pth
"""

_base_ = ["_base_/ade20k.py", "_base_/fpn_80k.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="xcit_small_12_p16", drop_path=0.05),
    neck=dict(type="FPN", out_channels=384),
    head=dict(type="FPNHead", num_classes=150, channels=128),
)
