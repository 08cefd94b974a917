"""COCO 2017 with boxes and masks."""

_base_ = ["coco_detection.py"]

train_dataloader = dict(dataset=dict(masks=True))
val_dataloader = dict(dataset=dict(masks=True))
test_dataloader = val_dataloader
