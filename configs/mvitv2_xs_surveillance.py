"""MViTv2-XS on surveillance clips, fight or no fight, from weights for CIFAR-10: 3.7 M parameters, for two CPU cores.

    densevit train mvitv2_xs_cifar10 --work-dir work_dirs/cifar
    densevit train mvitv2_xs_surveillance --weights work_dirs/cifar/iter_1564.pth

Data: data/surveillance/videos/*.mp4 with the lists train.txt and val.txt, lines `name.mp4 label`, and labels.txt;
--data-root points elsewhere. Scores: docs/results.md. Kernels for images become those of clips: each
stands at the middle of its time; what moves is yet to be learnt.
"""

_base_ = ["_base_/runtime.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mvitv2_xs_16", img_size=80, num_frames=8, token=True, drop_path=0.1),
    head=dict(type="VideoHead", num_classes=2, label_smoothing=0.1),
    data_preprocessor=dict(mean=(128, 128, 128), std=(16, 16, 16)),
    inference=dict(type="ClipViews", frames=8, crops=3),
)
difference = dict(type="FrameDifference", frames=9)
train_pipeline = [
    dict(type="RandomResizedCrop", size=80, scale=(0.3, 1.0), ratio=(0.75, 1.3333)),
    dict(type="RandomHorizontalFlip"),
    dict(type="ColorJitter", brightness=0.4, contrast=0.4, saturation=0.4),
    difference,
]
test_pipeline = [dict(type="ShortSideResize", sizes=80), difference]
sampling = dict(type="DenseSampling", frames=9, interval=3)
dataset = dict(type="ClipDataset", data_root="data/surveillance", short_side=112)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(dataset, ann_file="train.txt", sampling=dict(sampling, random=True), transforms=train_pipeline),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(dataset, ann_file="val.txt", sampling=sampling, transforms=test_pipeline),
)
test_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(dataset, ann_file="val.txt", sampling=dict(sampling, clips=3), transforms=test_pipeline),
)
val_evaluator = dict(type="ClipAccuracy")
test_evaluator = val_evaluator

epoch = 27  # steps
max_iters = 32 * epoch
warm_up = 2 * epoch
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayConstructor",
    optimizer=dict(type="AdamW", lr=3e-4, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=warm_up),
    dict(type="CosineAnnealingLR", eta_min=1e-6, by_epoch=False, begin=warm_up, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=8)
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=8 * epoch)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=4 * epoch), logger=dict(interval=epoch))
