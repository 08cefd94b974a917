"""BTCV, "Beyond the Cranial Vault": CT of the abdomen with 13 organs, and UNETR's recipe for 24 volumes, 6 to validate.

Data: data/btcv/dataset.json with imagesTr/img*.nii.gz and labelsTr/label*.nii.gz; docs/medical.md says how to get them.
The lists "training" and "validation" are those of MONAI's tutorial, or any others.

Volumes are prepared once and cached: voxels of 1.5 x 1.5 x 2 mm, -175 to 250 Hounsfield units. Of each step's volume
there are four crops (repeats) of 96 voxels a side, half of them around a voxel of an organ. 120,000 steps are the 5000
epochs of https://github.com/Project-MONAI/research-contributions.
"""

_base_ = ["runtime.py"]

classes = (
    "background",
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "oesophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic vein",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)
window = (96, 96, 96)
prepare = [
    dict(type="Orientationd", axcodes="RAS"),
    dict(type="Spacingd", pixdim=(1.5, 1.5, 2.0)),
    dict(type="ScaleIntensityRanged", a_min=-175, a_max=250, b_min=0.0, b_max=1.0, clip=True),
    dict(type="CropForegroundd"),
    dict(type="SpatialPadd", spatial_size=window),
    dict(type="FgBgToIndicesd"),
]
train_transforms = [
    dict(
        type="RandCropByPosNegLabeld",
        spatial_size=window,
        pos=1,
        neg=1,
        fg_indices_key="mask_fg_indices",
        bg_indices_key="mask_bg_indices",
    ),
    *[dict(type="RandFlipd", spatial_axis=axis, prob=0.2) for axis in range(3)],
    dict(type="RandRotate90d", prob=0.2, max_k=3),
    dict(type="RandScaleIntensityd", factors=0.1, prob=0.1),
    dict(type="RandShiftIntensityd", offsets=0.1, prob=0.1),
]
dataset = dict(
    type="VolumeDataset",
    data_root="data/btcv",
    classes=classes,
    prepare=prepare,
    cache="work_dirs/btcv_cache",
    download_help="How to get the data: docs/medical.md. Or pass --data-root",
)
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    repeats=4,
    dataset=dict(dataset, section="training", transforms=train_transforms),
)
val_dataloader = dict(batch_size=1, num_workers=2, dataset=dict(dataset, section="validation"))
test_dataloader = val_dataloader
val_evaluator = dict(type="VolumeDice", distances=False)
test_evaluator = dict(type="VolumeDice")

epoch = 24  # steps
max_iters = 5000 * epoch
warm_up = 50 * epoch
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-5))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-4, by_epoch=False, begin=0, end=warm_up),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=False, begin=warm_up, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=4)
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=100 * epoch)
val_cfg = dict(loss=False)
test_cfg = dict()
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=100 * epoch, save_best="mDice"))
