"""CCT-2/3x2 on CIFAR-10 for 30 epochs; all else as in configs/cct_2_3x2_cifar10.py.

Its first 13 epochs are those of the run of 20, which can be continued in a second sitting: by --work-dir on another
folder and --resume with the checkpoint iter_5083.pth of the first.
"""

_base_ = ["cct_2_3x2_cifar10.py"]

epoch = 391  # steps
max_iters = 30 * epoch
cooldown = 20 * epoch
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=200),
    dict(type="LinearLR", start_factor=1.0, end_factor=0.0, by_epoch=False, begin=cooldown, end=max_iters),
]
train_cfg = dict(max_iters=max_iters)
