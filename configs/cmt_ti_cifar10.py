"""CMT-Ti on CIFAR-10 from scratch, small enough for two CPU cores: its stem keeps the 32 x 32 pixels.

Data: data/cifar10/{train,test}/<class>/*.jpg; --data-root points elsewhere.
"""

_base_ = ["_base_/cifar10.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="cmt_ti", token=True, stem_stride=1, img_size=32, drop_path=0.0),
    head=dict(type="ClassificationHead", num_classes=10, label_smoothing=0.1),
    precision="fp32",
)

epoch = 391  # steps
max_iters = 5 * epoch
warm_up = 120
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayConstructor",
    optimizer=dict(type="AdamW", lr=8e-4, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=warm_up),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=False, begin=warm_up, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=128)
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=2 * epoch)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=100))
custom_hooks = [dict(type="EMAHook", ema_type="WarmupEMA", momentum=0.005)]
