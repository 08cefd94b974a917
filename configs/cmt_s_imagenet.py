"""CMT-S on ImageNet-1k, 26.3 M parameters.

Paper (https://arxiv.org/abs/2107.06263): top-1 83.5. Not trained by us. The authors' recipe is DeiT's with 20 epochs of
warm-up and averaged weights.
"""

_base_ = ["_base_/imagenet.py", "_base_/deit_300e.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="cmt_s", token=True, drop_path=0.1),
    head=dict(type="ClassificationHead", num_classes=1000, dropout=0.1, label_smoothing=0.1),
    data_preprocessor=dict(mixup=0.8, cutmix=1.0, num_classes=1000),
)
warm_up = 20
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, begin=0, end=warm_up, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-5, begin=warm_up, end=300, convert_to_iter_based=True),
]
custom_hooks = [dict(type="EMAHook", ema_type="WarmupEMA", momentum=4e-5)]
