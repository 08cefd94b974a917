"""SegFormer-B0 on generated scenes, from scratch: two minutes on two CPU cores.

Data: python tools/make_demo_data.py segmentation --root data/demo
"""

_base_ = ["../_base_/segformer_160k.py"]
