"""MViTv2-XS, a small one of ours, on CIFAR-10 from scratch in 4 epochs, small enough for a CPU: 3.5 M parameters.

    densevit train mvitv2_xs_cifar10

Data: data/cifar10/{train,test}/<class>/*.jpg; --data-root points elsewhere. Score: docs/results.md.
Its weights are what configs/mvitv2_xs_surveillance.py starts from.
"""

_base_ = ["_base_/cifar10.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mvitv2_xs", img_size=32, token=True, drop_path=0.0),
    head=dict(type="ClassificationHead", num_classes=10, label_smoothing=0.1),
)
epoch = 391  # steps
max_iters = 4 * epoch
warm_up = 100
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayConstructor",
    optimizer=dict(type="AdamW", lr=1.5e-3, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
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
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=epoch))
