"""MiT-B0 on ImageNet-1k, the weights from which SegFormer-B0 starts; 3.7 M parameters with the classifier.

Paper (https://arxiv.org/abs/2105.15203): top-1 70.5. Not trained by us.
"""

_base_ = ["_base_/imagenet.py", "_base_/deit_300e.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="mit_b0", token=True, drop_path=0.1),
    head=dict(type="ClassificationHead", num_classes=1000, label_smoothing=0.1),
    data_preprocessor=dict(mixup=0.8, cutmix=1.0, num_classes=1000),
)
