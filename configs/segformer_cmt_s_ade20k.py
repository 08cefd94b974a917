"""SegFormer's head and schedule on CMT-S, ADE20K, 24.9 M parameters.

A combination of ours, without published figures. Not trained by us.
From the authors' ImageNet weights: densevit train segformer_cmt_s_ade20k --weights cmt_small.pth
"""

_base_ = ["_base_/ade20k.py", "_base_/segformer_160k.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="cmt_s", drop_path=0.1),
    head=dict(type="SegFormerHead", num_classes=150, channels=256),
)
