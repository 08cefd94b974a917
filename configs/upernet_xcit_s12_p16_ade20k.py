"""UPerNet on XCiT-S12/16, ADE20K, 54.2 M parameters, 0.9 M of them for training only.

The authors' repository (https://github.com/facebookresearch/xcit) states mIoU 45.9. Not trained by us.
From the ImageNet weights that they start from:
densevit train upernet_xcit_s12_p16_ade20k --weights xcit_small_12_p16_384_dist.pth
"""

_base_ = ["_base_/ade20k.py", "_base_/upernet_160k.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="xcit_small_12_p16", drop_path=0.05),
    head=dict(
        type="UPerHead",
        num_classes=150,
        channels=512,
        auxiliary=dict(type="FCNHead", index=2, channels=256),
        auxiliary_weight=0.4,
    ),
)
