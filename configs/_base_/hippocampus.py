"""Hippocampus of the Medical Segmentation Decathlon: MR of 31..43 x 40..59 x 24..47 voxels of 1 mm, head and tail.

Data: data/hippocampus/dataset.json with imagesTr/*.nii.gz and labelsTr/*.nii.gz; --data-root points elsewhere.
It lists volumes to train under "training" and others under "validation".
"""

_base_ = ["runtime.py"]

classes = ("background", "anterior", "posterior")
window = (48, 48, 48)
prepare = [
    dict(type="Orientationd", axcodes="RAS"),
    dict(type="NormalizeIntensityd", nonzero=True, channel_wise=True),
    dict(type="SpatialPadd", spatial_size=window),
]
train_transforms = [
    dict(type="RandSpatialCropd", roi_size=window, random_size=False),
    dict(type="RandFlipd", spatial_axis=0, prob=0.5),  # left and right; along other axes the classes would change
    dict(type="RandRotated", range_x=0.2, range_y=0.2, range_z=0.2, prob=0.3, padding_mode="zeros"),
    dict(type="RandScaleIntensityd", factors=0.1, prob=0.5),
    dict(type="RandShiftIntensityd", offsets=0.1, prob=0.5),
]
dataset = dict(
    type="VolumeDataset",
    data_root="data/hippocampus",
    classes=classes,
    prepare=prepare,
    cache="work_dirs/hippocampus_cache",
)
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    dataset=dict(dataset, section="training", transforms=train_transforms),
)
val_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(dataset, section="validation"))
test_dataloader = val_dataloader
val_evaluator = dict(type="VolumeDice", distances=False)
test_evaluator = dict(type="VolumeDice")

max_iters = 1200
warm_up = 100
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-5),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=warm_up),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=False, begin=warm_up, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=2)
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=300)
val_cfg = dict(loss=False)
test_cfg = dict()
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=300))
