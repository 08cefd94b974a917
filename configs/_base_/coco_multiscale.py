"""COCO 2017 with boxes and masks, at shorter sides of 480 to 800; every other image is first cropped, as for DETR."""

_base_ = ["coco_instance.py"]

train_pipeline = [
    dict(
        type="RandomApply",
        p=0.5,
        transforms=[
            dict(type="ShortSideResize", sizes=(400, 500, 600), max_size=1333),
            dict(type="RandomSizeCrop", min_size=384, max_size=600),
        ],
    ),
    dict(type="ShortSideResize", sizes=(480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800), max_size=1333),
    dict(type="RandomHorizontalFlip", p=0.5),
    dict(type="SanitizeObjects"),
]
train_dataloader = dict(dataset=dict(transforms=train_pipeline))
