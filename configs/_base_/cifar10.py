"""CIFAR-10 in class folders, data/cifar10/{train,test}/<class>/*.jpg, with crops and flips, for two CPU cores."""

_base_ = ["runtime.py"]

train_pipeline = [
    dict(type="RandomCrop", size=32, padding=4),
    dict(type="RandomHorizontalFlip"),
]
dataset = dict(type="ImageFolderDataset", data_root="data/cifar10")
train_dataloader = dict(
    batch_size=128,
    num_workers=1,
    dataset=dict(dataset, split="train", transforms=train_pipeline),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=1,
    dataset=dict(dataset, split="test", transforms=[]),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="Accuracy")
test_evaluator = val_evaluator
