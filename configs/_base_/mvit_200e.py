"""MViT's recipe on Kinetics: 200 epochs of AdamW at 1e-4 for a batch of 64 clips, from scratch.

Papers: https://arxiv.org/abs/2104.11227, https://arxiv.org/abs/2112.01526. Each video twice in a row (repeats), mixing,
RandAugment with four operations at magnitude 7, erasing; all frames of a clip alike. Tested on five clips of one crop.
"""

_base_ = ["runtime.py", "kinetics400.py"]

augment = dict(
    type="RandomApply",
    p=0.5,
    transforms=[dict(type="RandAugment", num_ops=1, magnitude=7, num_magnitude_bins=11, interpolation="bilinear")],
)
train_pipeline = [
    dict(type="RandomResizedCrop", size=224, interpolation="bicubic"),
    dict(type="RandomHorizontalFlip"),
    *[augment] * 4,
    dict(type="NoiseErasing", p=0.25),
]
val_pipeline = [dict(type="ShortSideResize", sizes=256, max_size=2048), dict(type="CenterCrop", size=224)]
test_pipeline = [dict(type="ShortSideResize", sizes=224, max_size=2048)]
sampling = dict(type="DenseSampling", frames=16, interval=4, fps=30)
train_dataloader = dict(repeats=2, dataset=dict(sampling=dict(sampling, random=True), transforms=train_pipeline))
val_dataloader = dict(dataset=dict(sampling=sampling, transforms=val_pipeline))
test_dataloader = dict(dataset=dict(sampling=dict(sampling, clips=5), transforms=test_pipeline))

warm_up = 30
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayConstructor",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, begin=0, end=warm_up, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-6, begin=warm_up, end=200, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=64)
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=10)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=1, by_epoch=True, save_best="top1"))
