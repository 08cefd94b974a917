"""SegFormer's head and schedule on MobileViT-S, ADE20K, 5.3 M parameters.

A combination of ours, without published figures. Not trained by us.
From the authors' ImageNet weights, which want pixels of 0..1, blue first:
densevit train segformer_mobilevit_s_ade20k --weights mobilevit_s.pt
"""

_base_ = ["_base_/ade20k.py", "_base_/segformer_160k.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mobilevit_s"),
    head=dict(type="SegFormerHead", num_classes=150, channels=256),
    data_preprocessor=dict(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0), bgr=True),
)
# By kind of layer: whole transformer layers have "norm" in their official names.
paramwise_cfg = dict(_delete_=True, norm_decay_mult=0.0, custom_keys={"head": dict(lr_mult=10.0)})
optim_wrapper = dict(paramwise_cfg=paramwise_cfg)
