"""UNETR on BTCV, 13 organs, 92.8 M parameters: the network and the recipe of MONAI.

Not trained by us. With one model, trained on 24 volumes and validated on the 6 others, MONAI's tutorial reports a mean
Dice of 0.80: that is what to expect. The paper's (https://arxiv.org/abs/2103.10504) 0.856, an ensemble on the test
server, and 0.891, with 80 volumes to train, are other protocols.

MONAI's weights load: densevit test unetr_btcv UNETR_model_best_acc.pth
Data: see _base_/btcv.py.
"""

_base_ = ["_base_/btcv.py"]

model = dict(
    type="DenseModel",
    backbone=dict(type="unetr_vit_b16", img_size=96, in_channels=1, proj_type="perceptron"),
    head=dict(type="UNETRHead", num_classes=14, feature_size=16),
    data_preprocessor=dict(mean=(0,), std=(1,)),
    inference=dict(type="SlidingVolume", window=(96, 96, 96), overlap=0.5),
)
