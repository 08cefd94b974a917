"""A small UNETR on generated volumes, from scratch: a few minutes on two CPU cores.

Data: densevit make-demo-data volume --root data/demo
"""

_base_ = ["../_base_/runtime.py"]

window = (32, 32, 32)
model = dict(
    type="DenseModel",
    backbone=dict(
        type="UNETRViT",
        img_size=32,
        patch_size=8,
        in_channels=1,
        dim=96,
        depth=6,
        num_heads=4,
        hidden=192,
        taps=(2, 4),
    ),
    head=dict(type="UNETRHead", num_classes=3, feature_size=8),
    data_preprocessor=dict(mean=(0,), std=(1,)),
    inference=dict(type="SlidingVolume", window=window, overlap=0.25),
)
prepare = [
    dict(type="Orientationd", axcodes="RAS"),
    dict(type="Spacingd", pixdim=(2.5, 2.5, 2.5)),
    dict(type="ScaleIntensityRanged", a_min=-175, a_max=250, b_min=0.0, b_max=1.0, clip=True),
    dict(type="SpatialPadd", spatial_size=window),
]
train_transforms = [
    dict(type="RandSpatialCropd", roi_size=window, random_size=False),
    dict(type="RandScaleIntensityd", factors=0.1, prob=0.5),
    dict(type="RandShiftIntensityd", offsets=0.1, prob=0.5),
]
dataset = dict(
    type="VolumeDataset",
    data_root="data/demo/volume",
    classes=("background", "liver", "kidney"),
    prepare=prepare,
    cache="work_dirs/phantom_cache",
    download_help="The data of the demo are made by densevit make-demo-data volume --root data/demo",
)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(dataset, section="training", transforms=train_transforms),
)
val_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(dataset, section="validation"))
test_dataloader = val_dataloader
val_evaluator = dict(type="VolumeDice", distances=False)
test_evaluator = dict(type="VolumeDice")

max_iters = 300
warm_up = 30
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, betas=(0.9, 0.999), weight_decay=1e-5),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=warm_up),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=False, begin=warm_up, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=4)
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=100)
val_cfg = dict(loss=False)
test_cfg = dict()
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=100), logger=dict(interval=20))
