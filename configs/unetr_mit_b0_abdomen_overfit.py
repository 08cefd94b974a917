"""UNETR's decoder on a MiT-B0, and one CT to learn by heart: do labels, windows, grids and scores agree?

Worth 20 minutes before a long training on data of your own. Data: data/abdomen/dataset.json with one volume under
"training", labelled as BTCV's are; docs/results.md has the score of a CT of 122 x 101 x 112 voxels of 3 mm, which stay
as large as they are. Crops are centred on voxels of all classes alike: half of the organs have a thousandth of them.
"""

_base_ = ["_base_/btcv.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mit_b0", axes=3, in_channels=1, drop_path=0.0, out_indices=(0, 1, 2)),
    head=dict(type="UNETRHead", num_classes=14, feature_size=16),
    data_preprocessor=dict(mean=(0,), std=(1,), divisor=(16, 16, 16)),
    inference=dict(type="SlidingVolume", window=(48, 48, 48), overlap=0.5),
)
dataset = dict(
    type="VolumeDataset",
    data_root="data/abdomen",
    classes={{_base_.classes}},
    prepare=[
        dict(type="Orientationd", axcodes="RAS"),
        dict(type="ScaleIntensityRanged", a_min=-100, a_max=250, b_min=0.0, b_max=1.0, clip=True),
        dict(type="NormalizeIntensityd"),
        dict(type="ClassesToIndicesd", num_classes=14, image_key=None),
    ],
    cache="work_dirs/abdomen_cache",
)
crop = dict(type="RandCropByLabelClassesd", spatial_size=48, num_classes=14, indices_key="mask_cls_indices")
train_dataloader = dict(_delete_=True, batch_size=2, num_workers=1, repeats=2, dataset=dict(dataset, transforms=[crop]))
val_dataloader = dict(_delete_=True, batch_size=1, num_workers=1, dataset=dataset)
test_dataloader = val_dataloader

max_iters = 1500
warm_up = 50
optim_wrapper = dict(optimizer=dict(lr=1e-3, weight_decay=0.0), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=warm_up),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=False, begin=warm_up, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=2)
train_cfg = dict(max_iters=max_iters, val_interval=300)
default_hooks = dict(checkpoint=dict(interval=100))
