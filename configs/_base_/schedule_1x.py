"""The schedule "1x" of detection as with PVT: AdamW at 1e-4, 12 epochs, a tenth after 8 and 11, 500 steps of warm-up.

For a batch of 16: 8 processes of 2. With another, the learning rate is scaled; accumulated gradients count.
"""

_base_ = ["runtime.py"]

max_epochs = 12
warm_up = dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=500)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4),
)
param_scheduler = [
    warm_up,
    dict(type="MultiStepLR", milestones=[8, 11], gamma=0.1, by_epoch=True, begin=0, end=max_epochs),
]
auto_scale_lr = dict(base_batch_size=16)
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=1, by_epoch=True, save_best="bbox_AP"))
