"""SegFormer's schedule: AdamW at 6e-5, ten times that for the head, 1,500 steps of warm-up, linear to 0 at 160,000.

For a batch of 16: 8 processes of 2. With another, the learning rate is scaled; accumulated gradients count.
"""

_base_ = ["runtime.py"]

max_iters = 160_000
warm_up = 1500
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={"norm": dict(decay_mult=0.0), "head": dict(lr_mult=10.0)}),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=warm_up),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=warm_up, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=16)
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=16_000)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=4000, save_best="mIoU"))
