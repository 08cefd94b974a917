# residual_pyramid_config.py
_base_ = ["densevit::demo/segformer_b0_shapes.py"]

custom_imports = dict(imports=["residual_pyramid"])
model = dict(backbone=dict(_delete_=True, type="ResidualPyramid", width=32))
