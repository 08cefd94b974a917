"""Weights of every layout that is promised, what is reported, and what is refused."""

import argparse
import collections
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn

from densevit.backbones import MiT, mit_b0
from densevit.errors import CheckpointError
from densevit.tasks.segmentation import SegFormerHead
from densevit.weights import adapt_channels, load_weights, read_file

TINY: dict[str, Any] = {"dims": (8, 16, 24, 32), "depths": (1, 2, 1, 1), "num_heads": (1, 2, 3, 4), "drop_path": 0}


class Model(nn.Module):
    """The parts of a model, as weights are loaded into it."""

    def __init__(self, num_classes: int = 5, **options: Any) -> None:
        super().__init__()
        self.backbone = MiT(**{**TINY, **options})
        self.head = SegFormerHead(self.backbone.specs, num_classes, channels=16, dropout=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def random_model(seed: int, **options: Any) -> Model:
    """Return a model all of whose tensors are random, statistics of batch norm included."""
    torch.manual_seed(seed)
    model = Model(**options).eval()
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if key.endswith("running_var") else value.normal_(std=0.2)
    return model


@pytest.fixture
def source() -> Model:
    return random_model(0)


@pytest.fixture
def model() -> Model:
    return random_model(1)


def assert_same(a: Model, b: Model) -> None:
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(a(x), b(x), rtol=1e-6, atol=1e-6)


def official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {key.replace("head.", "decode_head."): value for key, value in state.items()}
    return {
        **renamed,
        "decode_head.conv_seg.weight": torch.ones(5, 128, 1, 1),
        "decode_head.conv_seg.bias": torch.ones(5),
    }


def test_a_checkpoint_of_ours_is_loaded_whole(source: Model, model: Model, tmp_path: Path) -> None:
    torch.save({"meta": {"iter": 3}, "state_dict": source.state_dict(), "optimizer": {}}, tmp_path / "a.pth")
    report = load_weights(model, tmp_path / "a.pth")
    assert_same(source, model)
    assert len(report.matched) == sum(report.totals.values())
    assert report.missing == report.unexpected == []
    assert report.skipped == report.resized == {}


def test_safetensors_are_loaded(source: Model, model: Model, tmp_path: Path) -> None:
    safetensors.torch.save_file(source.state_dict(), tmp_path / "a.safetensors")
    load_weights(model, str(tmp_path / "a.safetensors"))
    assert_same(source, model)


def test_an_official_segmentation_checkpoint_is_loaded_whole(source: Model, model: Model) -> None:
    report = load_weights(model, {"meta": {}, "state_dict": official(source.state_dict())})
    assert_same(source, model)
    assert report.unexpected == []
    assert report.missing == []


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state", "model_ema", "teacher"])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_wrappers_are_taken_off(source: Model, model: Model, wrapper: str, prefix: str) -> None:
    load_weights(model, {"epoch": 1, wrapper: {prefix + key: value for key, value in source.state_dict().items()}})
    assert_same(source, model)


def test_pretrained_backbones_leave_the_head_as_it_was(source: Model, model: Model) -> None:
    before = model.head.state_dict()["linear_pred.weight"].clone()
    imagenet = {**source.backbone.state_dict(), "head.weight": torch.ones(1000, 32), "head.bias": torch.ones(1000)}
    report = load_weights(model, imagenet)
    assert torch.equal(model.head.state_dict()["linear_pred.weight"], before)
    assert torch.equal(model.backbone.norm4.weight, source.backbone.norm4.weight)
    assert all(name.startswith("head.") for name in report.missing)
    assert report.unexpected == ["head.weight", "head.bias"]  # of the ImageNet classifier
    assert "backbone 120/120 tensors (100 %), head 0/15" in str(report)


def test_a_bare_backbone_takes_its_part_of_a_model(source: Model, model: Model) -> None:
    report = load_weights(model.backbone, source.state_dict())
    assert torch.equal(model.backbone.norm4.weight, source.backbone.norm4.weight)
    assert report.unexpected
    assert all(name.startswith("head.") for name in report.unexpected)


def test_another_number_of_classes_leaves_only_the_classifier(source: Model) -> None:
    model = random_model(1, num_classes=11)
    before = model.head.linear_pred.weight.clone()
    report = load_weights(model, source.state_dict())
    assert report.skipped == dict.fromkeys(("head.linear_pred.weight", "head.linear_pred.bias"), "5 -> 11 classes")
    assert "5 -> 11 classes" in str(report)
    assert torch.equal(model.head.linear_pred.weight, before)
    assert torch.equal(model.head.linear_c1.proj.weight, source.head.linear_c1.proj.weight)


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_another_number_of_input_channels_keeps_the_response_to_grey(source: Model, channels: int) -> None:
    model = random_model(1, in_channels=channels)
    report = load_weights(model, source.state_dict())
    assert report.resized == {"backbone.patch_embed1.proj.weight": f"3 -> {channels} input channels"}
    old, new = source.backbone.patch_embed1.proj.weight, model.backbone.patch_embed1.proj.weight
    if channels == 1:
        torch.testing.assert_close(new[:, 0], old.sum(1))
    else:
        torch.testing.assert_close(new[:, 1], old[:, 1] * 3 / channels)
        torch.testing.assert_close(new[:, -1], old[:, (channels - 1) % 3] * 3 / channels)


def test_a_uniform_first_convolution_responds_alike_whatever_the_channels() -> None:
    weight = torch.ones(2, 3, 4, 4)
    for channels in (1, 2, 3, 6):
        torch.testing.assert_close(adapt_channels(weight, channels).sum(1), weight.sum(1))


def test_old_files_without_the_counter_of_batch_norm_are_complete(source: Model, model: Model) -> None:
    state = {key: value for key, value in source.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert load_weights(model, state).missing == []


def test_what_belongs_nowhere_is_reported(source: Model, model: Model) -> None:
    extra = {"backbone.block1.0.gamma": torch.ones(3), "distilled_head.conv.weight": torch.ones(3)}
    report = load_weights(model, {**source.state_dict(), **extra})
    assert sorted(report.unexpected) == sorted(extra)


def test_the_report_is_printed_unless_unwanted(source: Model, model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    load_weights(model, source.state_dict(), verbose=False)
    assert capsys.readouterr().out == ""
    load_weights(model, source.state_dict())
    assert "loaded a state dict: backbone 120/120" in capsys.readouterr().out


def test_a_backbone_that_is_not_covered_is_refused_and_untouched(source: Model, model: Model) -> None:
    state = source.state_dict()
    del state["backbone.block2.1.attn.q.weight"]
    before = model.backbone.norm1.weight.clone()
    with pytest.raises(CheckpointError, match=r"lacks 1 of the 120 tensors.*backbone\.block2\.1\.attn\.q\.weight"):
        load_weights(model, state)
    assert torch.equal(model.backbone.norm1.weight, before)
    assert load_weights(model, state, allow_partial=True).missing == ["backbone.block2.1.attn.q.weight"]
    assert torch.equal(model.backbone.norm1.weight, source.backbone.norm1.weight)


def test_the_variant_of_a_wrong_checkpoint_is_guessed(model: Model) -> None:
    with pytest.raises(CheckpointError, match=r"is this a checkpoint of mit_b0\?"):
        load_weights(model, mit_b0().state_dict())


def test_weights_of_another_width_are_not_said_to_have_other_names() -> None:
    wide, narrow = (MiT(dims=dims, num_heads=(1, 1, 1, 1)) for dims in ((16, 16, 16, 16), (8, 8, 8, 8)))
    with pytest.raises(CheckpointError, match=r"is this a checkpoint of another variant\?"):
        load_weights(narrow, wide.state_dict())


def test_weights_of_another_architecture_are_named(model: Model) -> None:
    with pytest.raises(CheckpointError, match=r"not those of MiT: layer1\.weight"):
        load_weights(model, {"layer1.weight": torch.ones(3)})


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"state_dict": {"epoch": 3}}])
def test_a_file_without_weights_is_refused(model: Model, content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "empty.pth")
    with pytest.raises(CheckpointError, match=r"empty\.pth holds no weights"):
        load_weights(model, tmp_path / "empty.pth")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_missing_and_truncated_files_are_named(source: Model, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    with pytest.raises(CheckpointError, match=rf"weights\.{suffix} does not exist"):
        read_file(path)
    write = safetensors.torch.save_file if suffix == "safetensors" else torch.save
    write(source.state_dict(), path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:5], b"", b"<html>not found</html>"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"weights\.{suffix} is corrupt"):
            read_file(path)


def test_any_other_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder, and no checkpoint"):
        read_file(tmp_path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_a_file_is_named_and_not_run(protocol: int, ran: Path, attack: object, tmp_path: Path) -> None:
    content = {"state_dict": {}, "hook": attack}
    torch.save(content, tmp_path / "new.pth", pickle_protocol=protocol)
    torch.save(content, tmp_path / "old.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(content, protocol))
    for name in ("new", "old", "plain"):
        with pytest.raises(CheckpointError, match=rf"{name}\.pth (?!.*weights_only)") as refused:
            read_file(tmp_path / f"{name}.pth")
        if protocol == 2:  # torch's own
            assert "asks to run posix.mkdir" in str(refused.value)
            assert "safetensors" in str(refused.value)
    assert not ran.exists()


class Call:
    """Unpickled naively, it is what a call gives."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_what_mmengine_logs_in_a_checkpoint_is_passed_over_and_calls_nothing(
    source: Model, model: Model, ran: Path, attack: object, tmp_path: Path
) -> None:
    log = {"loss": HistoryBuffer([1.0, 0.5], [1, 1]), "eta": np.float64(3), "other": Call(getattr, "", "upper")}
    content = {"state_dict": source.state_dict(), "message_hub": {"log_scalars": log}}
    torch.save(content, tmp_path / "epoch_12.pth")
    load_weights(model, tmp_path / "epoch_12.pth")
    assert_same(model, source)
    read = read_file(tmp_path / "epoch_12.pth")["message_hub"]["log_scalars"]
    assert not any(isinstance(value, HistoryBuffer | float) or callable(value) for value in read.values())
    log["more"] = Call(getattr, attack, "folder")
    torch.save(content, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"asks to run posix\.mkdir"):
        read_file(tmp_path / "evil.pth")
    assert not ran.exists()


def test_arguments_kept_by_official_releases_do_no_harm(source: Model, model: Model, tmp_path: Path) -> None:
    content = {"model": collections.OrderedDict(source.state_dict()), "args": argparse.Namespace(lr=1e-3, model="mit")}
    torch.save(content, tmp_path / "official.pth")
    load_weights(model, tmp_path / "official.pth")
    assert_same(source, model)


def test_lower_precision_is_read_into_that_of_the_model(source: Model, model: Model) -> None:
    load_weights(model, {key: v.bfloat16() if v.is_floating_point() else v for key, v in source.state_dict().items()})
    assert model.backbone.norm1.weight.dtype == torch.float32
    torch.testing.assert_close(model.backbone.norm1.weight, source.backbone.norm1.weight, rtol=1e-2, atol=1e-2)
