"""Every block of docs/inference.md runs, on generated data and random weights."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densevit.data.phantoms import draw_phantom
from densevit.data.video_writing import write_video
from densevit.engine.checkpoint import save_checkpoint
from densevit.engine.config import load_config
from densevit.engine.plain_config import to_plain
from densevit.palette import distinct_colours
from densevit.registry import MODELS

DOCS = Path(__file__).parents[1] / "docs"
RUNS = ("segformer_b0_shapes", "timesformer_motion", "unetr_phantom")


def write_run(name: str) -> None:
    """Write work_dirs/NAME with a checkpoint of random weights."""
    cfg = load_config(f"demo/{name}")
    model = MODELS.build(cfg.model)
    classes = [f"class {i}" for i in range(model.head.num_classes)]
    named = {"classes": classes, "palette": distinct_colours(len(classes))}
    meta = {"iter": 1, "epoch": 0, "config": to_plain(cfg), "dataset": named}
    path = Path("work_dirs") / name / "iter_1.pth"
    path.parent.mkdir(parents=True)
    save_checkpoint({"meta": meta, "state_dict": model.state_dict()}, path)


@pytest.mark.slow
def test_the_blocks_of_the_page_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    for name in RUNS:
        write_run(name)
    torch.save(MODELS.build(load_config("segformer_b0_ade20k").model).state_dict(), "segformer.b0.ade.pth")
    Path("photos").mkdir()
    for path in ("photo.jpg", "photos/a.jpg", "photos/b.jpg"):
        Image.fromarray(rng.integers(0, 256, (96, 128, 3), np.uint8)).save(path)
    Path("photos/broken.jpg").write_bytes(b"no image")
    write_video(Path("clip.mp4"), rng.integers(0, 256, (30, 48, 64, 3), np.uint8), 10)
    draw_phantom(rng)[0].to_filename("scan.nii.gz")

    text = (DOCS / "inference.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == text.count("```") // 2 > 6
    Path("page.py").write_text("\n".join(blocks))
    names = runpy.run_path("page.py")
    found = {path.relative_to("found").as_posix() for path in Path("found").rglob("*.*")}
    images = {f"{kind}/{name}" for kind, name in (("overlays", "a.jpg"), ("outputs", "b.png"))}
    assert found >= {"overlays/photo.jpg", "outputs/photo.png", *images}
    assert found >= {"overlays/clip.jpg", "videos/clip.mp4", "overlays/scan.png", "outputs/scan.nii.gz"}
    assert predicted(names) == (96, 128)


def predicted(names: dict[str, object]) -> tuple[int, ...]:
    """Return the size of what the last predictor of the page, of official weights, finds in the photo."""
    predictor = names["predictor"]
    assert callable(predictor)
    return tuple(predictor("photo.jpg").prediction.mask.shape)
