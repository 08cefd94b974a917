"""How options of the command line become those of the config, --tta and --slide the way of inference."""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from densevit.cli import _check_writable, add_config_options, add_run_options, config_from
from densevit.errors import ConfigError
from densevit.inference import use_inference

SLIDE = {"type": "SlideInference", "crop_size": (64, 64)}


def inference(head: str, configured: dict[str, Any] | None, slide: bool, tta: bool) -> dict[str, Any] | None:
    cfg = Config({"model": {"head": {"type": head}, "inference": configured}})
    use_inference(cfg, slide, tta)
    found: dict[str, Any] | None = cfg.model.inference
    return found


def test_segmentation_slides_and_averages_as_asked() -> None:
    assert inference("SegFormerHead", None, slide=False, tta=False) is None
    assert inference("SegFormerHead", SLIDE, slide=True, tta=False) == SLIDE
    assert inference("SegFormerHead", SLIDE, slide=False, tta=True) == {"type": "TestTimeAugment", "inference": SLIDE}


@pytest.mark.parametrize("head", ["RetinaHead", "MaskRCNNHead", "CascadeMaskRCNNHead"])
def test_detectors_have_an_augmentation_of_their_own(head: str) -> None:
    assert inference(head, None, slide=False, tta=False) is None
    assert inference(head, None, slide=False, tta=True) == {"type": "DetectionTTA"}
    own = {"type": "DetectionTTA", "scales": (1.0,)}
    assert inference(head, own, slide=False, tta=True) == own


@pytest.mark.parametrize("tta", [False, True])
def test_detectors_cannot_slide(tta: bool) -> None:
    with pytest.raises(ConfigError, match="sliding windows are for segmentation: RetinaHead sees whole images"):
        inference("RetinaHead", None, slide=True, tta=tta)


def test_volumes_are_slid_over_and_mirrored_by_the_same() -> None:
    own = {"type": "SlidingVolume", "window": (48, 48, 48)}
    assert inference("UNETRHead", None, slide=False, tta=False) is None
    assert inference("UNETRHead", own, slide=False, tta=False) == own
    assert inference("UNETRHead", None, slide=True, tta=False) == {"type": "SlidingVolume"}
    assert inference("UNETRHead", None, slide=False, tta=True) == {"type": "SlidingVolume", "flips": (0, 1, 2)}
    assert inference("UNETRHead", own, slide=True, tta=True) == {**own, "flips": (0, 1, 2)}
    assert inference("UNETRHead", {**own, "flips": (0,)}, slide=False, tta=True) == {**own, "flips": (0,)}


def test_processes_that_start_at_once_do_not_disturb_each_others_check_of_the_work_dir(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: _check_writable(tmp_path), range(800)))
    assert not list(tmp_path.iterdir())


def test_options_of_a_run_are_those_of_the_config(config: Config, tmp_path: Path) -> None:
    config.model.compile = {"dynamic": True}
    config.dump(tmp_path / "tiny.py")
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    add_run_options(parser)

    def model(*options: str) -> Any:
        return config_from(parser.parse_args([str(tmp_path / "tiny.py"), "--work-dir", str(tmp_path), *options])).model

    assert model("--compile").compile == {"dynamic": True}
    config.model.pop("compile")
    config.dump(tmp_path / "tiny.py")
    assert model("--compile", "--amp").compile is True
    assert model("--amp").precision == "bf16"
    assert "compile" not in model()
