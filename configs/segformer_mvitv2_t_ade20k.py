"""SegFormer's head and schedule on MViTv2-T, ADE20K, 24.1 M parameters.

A combination of ours, without published figures. Not trained by us.
From the authors' ImageNet weights:
densevit train segformer_mvitv2_t_ade20k --weights MViTv2_T_in1k.pyth
"""

_base_ = ["_base_/ade20k.py", "_base_/segformer_160k.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mvitv2_t", drop_path=0.1),
    head=dict(type="SegFormerHead", num_classes=150, channels=256),
)
