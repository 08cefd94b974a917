"""The schedule "3x" of detection as with Swin and XCiT: 36 epochs, a tenth after 27 and 33, norms not decayed."""

_base_ = ["schedule_1x.py"]

max_epochs = 36
optim_wrapper = dict(optimizer=dict(weight_decay=0.05), paramwise_cfg=dict(custom_keys={"norm": dict(decay_mult=0.0)}))
param_scheduler = [
    {{_base_.warm_up}},
    dict(type="MultiStepLR", milestones=[27, 33], gamma=0.1, by_epoch=True, begin=0, end=max_epochs),
]
train_cfg = dict(max_epochs=max_epochs)
