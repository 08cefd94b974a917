"""DeiT's schedule (https://arxiv.org/abs/2012.12877): AdamW at 1e-3 for a batch of 1024, 300 epochs, cosine to 1e-5.

Weight decay 0.05, not on vectors nor on what the backbone exempts. With another batch size, use --auto-scale-lr.
"""

_base_ = ["runtime.py"]

max_epochs = 300
warm_up = 5
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayConstructor",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, begin=0, end=warm_up, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-5, begin=warm_up, end=max_epochs, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=1024)
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=1, by_epoch=True, save_best="top1"))
