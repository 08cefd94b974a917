"""SegFormer-B0 on ADE20K, 3.8 M parameters.

Paper (https://arxiv.org/abs/2105.15203): mIoU 37.4 / 38.0 single scale / multi scale and flip. Not trained by us.
From the authors' ImageNet weights: densevit train segformer_b0_ade20k --weights mit_b0.pth
"""

_base_ = ["_base_/ade20k.py", "_base_/segformer_160k.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mit_b0", drop_path=0.1),
    head=dict(type="SegFormerHead", num_classes=150, channels=256),
)
