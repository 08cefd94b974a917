"""CCT-2/3x2 on CIFAR-10 from scratch in 20 epochs, small enough for two CPU cores: 0.28 M parameters.

Data: data/cifar10/{train,test}/<class>/*.jpg; --data-root points elsewhere. Scores: docs/results.md. The paper's recipe
is for 300 epochs and strong augmentation; here the model sees too few images to need it, or dropped paths.

The learning rate is constant until the last epochs, in which it falls to 0. So a run can be made longer: go on from a
checkpoint of the constant part, with a later end (configs/cct_2_3x2_cifar10_30e.py).
"""

_base_ = ["_base_/cifar10.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="cct_2_3x2_32", token=True, attn_dropout=0.0, drop_path=0.0),
    head=dict(type="ClassificationHead", num_classes=10, label_smoothing=0.1),
)
cached = dict(dataset=dict(cache=True))
train_dataloader = cached
val_dataloader = cached
test_dataloader = cached

epoch = 391  # steps
max_iters = 20 * epoch
cooldown = 13 * epoch
warm_up = 200
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayConstructor",
    optimizer=dict(type="AdamW", lr=2e-3, betas=(0.9, 0.999), weight_decay=0.03, fused=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=warm_up),
    dict(type="LinearLR", start_factor=1.0, end_factor=0.0, by_epoch=False, begin=cooldown, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=128)
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=5 * epoch)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=epoch, max_keep_ckpts=20))
