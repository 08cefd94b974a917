"""ADE20K at 512 x 512: 20,210 images to train, 2,000 to validate, 150 classes."""

num_classes = 150
train_pipeline = [
    dict(type="RandomRatioResize", scale=(2048, 512), ratio=(0.5, 2.0)),
    dict(type="RandomCategoryCrop", size=(512, 512), max_ratio=0.75),
    dict(type="RandomHorizontalFlip", p=0.5),
    dict(type="PhotometricDistortion"),
]
test_pipeline = [dict(type="AlignedResize", scale=(2048, 512), divisor=32)]
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    dataset=dict(type="ADE20KDataset", split="training", transforms=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    dataset=dict(type="ADE20KDataset", split="validation", transforms=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="MeanIoU")
test_evaluator = val_evaluator
