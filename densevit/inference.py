"""Ways to evaluate that a config does not name: sliding windows and test-time augmentation."""

from mmengine.config import Config

from densevit.errors import ConfigError
from densevit.registry import DATASETS, HEADS, MODELS


def use_inference(cfg: Config, slide: bool, tta: bool) -> None:
    """Evaluate by sliding windows, test-time augmentation, or both; the config's own settings are kept.

    Heads that do not predict maps name their ``test_time_augment``, and see whole inputs only. An augmentation may
    ``configure`` itself, and the dataset, for the dataset's config. Heads of volumes name what is ``sliding`` over
    them, which mirrors too.

    Raises:
        ConfigError: ``slide``, but the head sees whole inputs only.
    """
    configured = cfg.model.get("inference") or {}
    head = HEADS.get(cfg.model.head.type)
    if volumes := getattr(head, "sliding", None):
        if slide or tta:
            windows = configured if configured.get("type") == volumes else {"type": volumes}
            cfg.model.inference = {"flips": (0, 1, 2), **windows} if tta else windows
        return
    augment = getattr(head, "test_time_augment", None)
    if slide and augment:
        raise ConfigError(
            f"sliding windows are for segmentation: {cfg.model.head.type} sees whole images or clips. Leave slide out"
        )
    if slide:
        configured = configured if configured.get("type") == "SlideInference" else {"type": "SlideInference"}
    if tta and augment and configured.get("type") != augment:
        configure = getattr(MODELS.get(augment), "configure", None)
        configured = configure(cfg.test_dataloader.dataset) if configure else {"type": augment}
    elif tta and not augment:
        configured = {"type": "TestTimeAugment", "inference": configured or None}
    cfg.model.inference = configured or None


def slides_over_time(cfg: Config) -> bool:
    """Say whether what predicts for the config's dataset has its own meaning of sliding: windows of a long input."""
    return hasattr(getattr(DATASETS.get(cfg.test_dataloader.dataset.type), "predictor", None), "slide")
