"""COCO 2017 with boxes: 118,287 images to train, of which 117,266 have objects, 5,000 to validate, 80 classes.

Images fit into 1333 x 800 pixels. 8 processes of 2.
"""

num_classes = 80
train_pipeline = [
    dict(type="ShortSideResize", sizes=800, max_size=1333),
    dict(type="RandomHorizontalFlip", p=0.5),
]
test_pipeline = [dict(type="AlignedResize", scale=(1333, 800), divisor=1)]
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    group_by_aspect=True,
    dataset=dict(
        type="Coco2017Dataset",
        split="train",
        filter_empty=True,
        min_size=32,
        transforms=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    dataset=dict(type="Coco2017Dataset", split="val", transforms=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoMetric")
test_evaluator = val_evaluator
