"""MViTv2's schedule for detection: AdamW at 1.6e-4, 67,500 steps (36 epochs), a tenth after 52,500 and 62,500.

Weight decay 0.1, not on norms and positions. For a batch of 64: 64 processes of 1, or 8 of 8 where they fit.
"""

_base_ = ["runtime.py"]

max_iters = 67_500
warm_up = 250
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1.6e-4, betas=(0.9, 0.999), weight_decay=0.1),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={"rel_pos": dict(decay_mult=0.0)}),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=warm_up),
    dict(type="MultiStepLR", milestones=[52_500, 62_500], gamma=0.1, by_epoch=False, begin=0, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=64)
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=7500)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=2500, save_best="bbox_AP"))
