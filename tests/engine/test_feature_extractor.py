"""Features of data are those of the backbone; tests/tasks/test_few_shot.py has images of a config."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from torchvision.tv_tensors import Video

from densevit.engine.feature_extractor import FeatureExtractor
from densevit.registry import BACKBONES
from densevit.structures import Meta, Sample

FRAMES = 2
HALVES = (slice(0, 16), slice(8, 24))  # columns of the crops
BACKBONE = {
    "type": "Framewise",
    "backbone": {"type": "ViT", "dim": 16, "depth": 2, "num_heads": 2, "hidden": 32, "patch_size": 8, "img_size": 16},
    "temporal": "transformer",
    "depth": 1,
    "num_heads": 2,
    "num_frames": FRAMES,
    "token": True,
}


def clips(count: int) -> list[Sample]:
    generator = torch.Generator().manual_seed(1)
    videos = torch.randint(0, 256, (count, 3 * FRAMES, 3, 16, 24), generator=generator, dtype=torch.uint8)
    return [Sample(Video(video), None, Meta("", (6, 16, 24), (6, 16, 24))) for video in videos]


def extractor(folder: Path, **model: Any) -> FeatureExtractor:
    torch.manual_seed(0)
    torch.save(BACKBONES.build(BACKBONE).state_dict(), folder / "random.pth")
    cfg = Config({"model": {"backbone": BACKBONE, **model}, "test_dataloader": {"batch_size": 2, "num_workers": 0}})
    return FeatureExtractor(cfg, folder / "random.pth", "cpu")


def test_the_feature_of_a_video_is_the_mean_over_its_views(tmp_path: Path) -> None:
    data = clips(3)
    views = {"type": "ClipViews", "frames": FRAMES, "crop_size": 16, "crops": 2}
    extract = extractor(tmp_path, inference=views)
    got = extract(data, range(3), "features")
    x = torch.stack(extract.preprocessor(data)["inputs"])
    with torch.no_grad():
        tokens = [extract.backbone(clip[..., side]).token for clip in x.split(FRAMES, dim=2) for side in HALVES]
    torch.testing.assert_close(got, torch.stack(tokens).mean(dim=0))
    assert (got[0] - got[1]).abs().max() > 1e-3


@pytest.mark.parametrize("inference", [None, {"type": "SlidingVolume", "window": (8, 16, 16)}])
def test_without_views_it_is_that_of_the_whole_clip(tmp_path: Path, inference: dict[str, Any] | None) -> None:
    data = clips(2)
    extract = extractor(tmp_path, inference=inference)
    x = torch.stack(extract.preprocessor(data)["inputs"])
    with torch.no_grad():
        torch.testing.assert_close(extract(data, range(2), "features"), extract.backbone(x).token)
