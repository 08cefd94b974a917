"""SegFormer's head and schedule on XCiT-S12/16, ADE20K, 24.8 M parameters.

A combination of ours, without published figures. Not trained by us.
From the authors' ImageNet weights:
densevit train segformer_xcit_s12_p16_ade20k --weights xcit_small_12_p16_224.pth
"""

_base_ = ["_base_/ade20k.py", "_base_/segformer_160k.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="xcit_small_12_p16", drop_path=0.05),
    head=dict(type="SegFormerHead", num_classes=150, channels=256),
)
