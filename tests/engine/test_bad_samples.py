"""Samples that were replaced are told in the log, once."""

from pathlib import Path

from mmengine.config import Config

from densevit.data.quarantine import Quarantine, listed
from densevit.engine.runner import Runner


def test_what_was_replaced_is_told_once(config: Config, tmp_path: Path) -> None:
    folder = Path(config.train_dataloader.dataset.data_root) / "images" / "train"
    sorted(folder.iterdir())[0].write_bytes(b"")
    config.work_dir, config.check_data = str(tmp_path / "run"), "off"
    config.train_cfg.max_iters = 16  # all images, and several validations
    Runner.from_cfg(config).train()
    (log,) = (tmp_path / "run").glob("*/*.log")
    (told,) = [line for line in log.read_text().splitlines() if "take their places" in line]
    assert "1 samples cannot be read" in told
    assert "bad_samples.jsonl says; the last one: " in told


def test_a_list_is_read_as_far_as_it_can_be(tmp_path: Path) -> None:
    path = tmp_path / "bad_samples.jsonl"
    assert listed(path) == []
    Quarantine(path, total=9, replace=True).record(["a.jpg"], ValueError("empty"), "b.jpg")
    with path.open("a") as file:
        file.write('{"path": "unfin')
    assert [entry["path"] for entry in listed(path)] == ["a.jpg"]
