"""TimeSformer-HR on Kinetics-400: 16 frames, every 16th, of 448 x 448.

Paper (https://arxiv.org/abs/2102.05095): top-1 79.7 on one clip of three crops, 5.11 T operations for the three. Not
trained by us.
"""

_base_ = ["timesformer_div_8x32_k400.py"]

model = dict(
    backbone=dict(type="timesformer_hr"),
    inference=dict(frames=16, crop_size=448),
    activation_checkpointing=True,
)
train_pipeline = [
    dict(type="ShortSideResize", sizes=list(range(448, 513)), max_size=2048),
    dict(type="RandomCrop", size=448),
    dict(type="RandomHorizontalFlip"),
]
val_pipeline = [dict(type="ShortSideResize", sizes=448, max_size=2048), dict(type="CenterCrop", size=448)]
test_pipeline = [dict(type="ShortSideResize", sizes=448, max_size=2048)]
sampling = dict(type="DenseSampling", frames=16, interval=16, fps=30)
large = dict(short_side=512, sampling=sampling)
train_dataloader = dict(dataset=dict(large, sampling=dict(sampling, random=True), transforms=train_pipeline))
val_dataloader = dict(dataset=dict(large, transforms=val_pipeline))
test_dataloader = dict(dataset=dict(large, transforms=test_pipeline))
