"""Samples that were replaced or left out are told in the log, once."""

from pathlib import Path

from mmengine.config import Config

from densevit.data.quarantine import Quarantine, listed
from densevit.engine.runner import Runner


def test_what_was_replaced_and_left_out_is_told_with_the_last_error(config: Config, tmp_path: Path) -> None:
    for split in ("train", "val"):
        folder = Path(config[f"{split}_dataloader"].dataset.data_root) / "images" / split
        sorted(folder.iterdir())[0].write_bytes(b"")
    config.work_dir, config.check_data = str(tmp_path / "run"), "off"
    config.train_cfg.max_iters = 16  # all images, and several validations
    Runner.from_cfg(config).train()
    (log,) = (tmp_path / "run").glob("*/*.log")
    told = [line for line in log.read_text().splitlines() if "samples that cannot be read" in line]
    assert "1 left out of an evaluation, as" in told[0]
    assert sum("1 replaced in training" in line for line in told) == 1
    assert sum("1 left out" in line for line in told) == 1
    assert "bad_samples.jsonl says; the last one: " in told[-1]


def test_a_list_is_read_as_far_as_it_can_be(tmp_path: Path) -> None:
    path = tmp_path / "bad_samples.jsonl"
    assert listed(path) == []
    Quarantine(path, total=9, replace=True).record(["a.jpg"], ValueError("empty"), "b.jpg")
    with path.open("a") as file:
        file.write('{"path": "unfin')
    assert [entry["path"] for entry in listed(path)] == ["a.jpg"]
