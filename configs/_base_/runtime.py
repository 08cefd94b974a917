"""What every run shares."""

default_scope = "densevit"
randomness = dict(seed=0)
check_data = "sample"
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    progress=dict(type="ProgressHook"),
    report=dict(type="ReportHook"),
)
visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")])
