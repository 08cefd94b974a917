"""A small TimeSformer on generated clips, from scratch: four minutes on one CPU core. Scores: docs/results.md.

The classes are directions of motion, which no frame shows: without attention over time it stays near chance, 0.25:

--cfg-options model.backbone.attention=space

Clips have two frames: with more, it takes much longer to learn which frame is the next.

Data: densevit make-demo-data video --root data/demo
"""

_base_ = ["../_base_/runtime.py"]

model = dict(
    type="DenseModel",
    backbone=dict(
        type="TimeSformer",
        img_size=64,
        num_frames=2,
        patch_size=16,
        dim=64,
        depth=4,
        num_heads=4,
        hidden=256,
        positions_std=0.3,
        drop_path=0.0,
        token=True,
    ),
    head=dict(type="VideoHead", num_classes=4),
    data_preprocessor=dict(mean=(80, 80, 80), std=(255, 255, 255)),
    precision="fp32",
)
sampling = dict(type="DenseSampling", frames=2, interval=2)
dataset = dict(
    type="ClipDataset",
    data_root="data/demo/video",
    transforms=[],  # a flip would change the class
    download_help="The data of the demo are made by densevit make-demo-data video --root data/demo",
)
train_dataloader = dict(
    batch_size=32,
    num_workers=0,  # decoding is a small part of a step
    dataset=dict(dataset, ann_file="train.txt", sampling=dict(sampling, random=True)),
)
val_dataloader = dict(batch_size=32, num_workers=0, dataset=dict(dataset, ann_file="val.txt", sampling=sampling))
test_dataloader = val_dataloader
val_evaluator = dict(type="ClipAccuracy")
test_evaluator = val_evaluator

max_iters = 800
warm_up = 100
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="LayerDecayConstructor",
    optimizer=dict(type="AdamW", lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=warm_up),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=False, begin=warm_up, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=32)
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=200)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=200), logger=dict(interval=20))
