"""XCiT-S12/16 on ImageNet-1k, 26.3 M parameters.

Paper (https://arxiv.org/abs/2106.09681): top-1 82.0. Not trained by us. The authors' recipe is DeiT's for 400 epochs
with averaged weights and synchronised batch norms; images are tested whole, not only their centre.
"""

_base_ = ["_base_/imagenet.py", "_base_/deit_300e.py"]

sync_bn = "torch"
model = dict(
    type="DenseModel",
    backbone=dict(type="xcit_small_12_p16", token=True, drop_path=0.05),
    head=dict(type="ClassificationHead", num_classes=1000, label_smoothing=0.1),
    data_preprocessor=dict(mixup=0.8, cutmix=1.0, num_classes=1000),
)
test_pipeline = [dict(type="Resize", size=224, interpolation="bicubic"), dict(type="CenterCrop", size=224)]
val_dataloader = dict(dataset=dict(transforms=test_pipeline))
test_dataloader = val_dataloader

max_epochs = 400
warm_up = 5
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, begin=0, end=warm_up, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-5, begin=warm_up, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs)
custom_hooks = [dict(type="EMAHook", ema_type="WarmupEMA", momentum=4e-5)]
