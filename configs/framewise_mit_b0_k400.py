"""MiT-B0, the backbone of SegFormer-B0, frame by frame on Kinetics-400, and a small transformer over the frames.

No paper trains it: a cheap baseline, and what weights for images are worth on clips (--weights FILE of MiT-B0 on
ImageNet). One frame of each of eight segments of a video, as in TSN. Not trained by us.
"""

_base_ = ["_base_/mvit_200e.py"]

model = dict(
    type="DenseModel",
    backbone=dict(
        type="Framewise",
        backbone=dict(type="mit_b0", drop_path=0.1),
        temporal="transformer",
        depth=2,
        num_heads=8,
        num_frames=8,
        token=True,
    ),
    head=dict(type="VideoHead", num_classes=400, dropout=0.5, label_smoothing=0.1),
    data_preprocessor=dict(mixup=0.8, cutmix=1.0, num_classes=400),
    inference=dict(type="ClipViews", frames=8, crop_size=224, crops=3),
)
sampling = dict(_delete_=True, type="SegmentSampling", frames=8)
train_dataloader = dict(dataset=dict(sampling=dict(sampling, random=True)))
val_dataloader = dict(dataset=dict(sampling=sampling))
test_dataloader = dict(dataset=dict(sampling=dict(sampling, clips=2)))
train_cfg = dict(max_epochs=50)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, begin=0, end=5, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-6, begin=5, end=50, convert_to_iter_based=True),
]
