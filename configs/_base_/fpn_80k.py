"""Semantic FPN's schedule with XCiT: that of UPerNet, in half as many steps."""

_base_ = ["upernet_160k.py"]

max_iters = 80_000
warm_up = 1500
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=warm_up),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=warm_up, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=8000)
