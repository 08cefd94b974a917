"""The model between samples and predictions."""

import shutil
from typing import Any

import pytest
import torch
from torchvision.tv_tensors import Image, Mask

from densevit.errors import ConfigError
from densevit.model import DenseModel
from densevit.registry import MODELS
from densevit.structures import BoxTarget, Meta, Sample, SegTarget


def build(**options: object) -> DenseModel:
    torch.manual_seed(0)
    backbone = {"type": "MiT", "dims": (8, 16, 16, 24), "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 3)}
    head = {"type": "SegFormerHead", "num_classes": 3, "channels": 16}
    model: DenseModel = MODELS.build(
        {"type": "DenseModel", "backbone": backbone, "head": head, "precision": "fp32", **options}
    )
    return model.eval()


def sample(height: int, width: int, seed: int, original: tuple[int, int] | None = None) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
    size = original or (height, width)
    mask = torch.randint(0, 3, size, dtype=torch.uint8, generator=generator)
    return Sample(Image(image), SegTarget(Mask(mask)), Meta(f"{seed}.png", size, (height, width)))


def test_an_autocast_of_the_caller_is_kept() -> None:
    model, x = build(), torch.randn(1, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = model(x)
        model.precision = "bf16"
        assert torch.equal(model(x), low)
    assert not torch.equal(model(x), build()(x))


def test_a_prediction_does_not_depend_on_the_rest_of_the_batch() -> None:
    model = build()
    samples = [sample(64, 96, 0), sample(97, 130, 1), sample(64, 96, 2), sample(40, 33, 3)]
    with torch.no_grad():
        together = model.test_step(samples)
        alone = [model.test_step([s])[0] for s in samples]
    for one, other, s in zip(together, alone, samples, strict=True):
        assert one.mask.shape == s.meta.original_size
        assert (one.mask != other.mask).float().mean() < 0.01  # but for ties of rounding


def test_a_prediction_has_the_size_of_the_file() -> None:
    prediction = build().test_step([sample(64, 96, 0, original=(50, 77))])[0]
    assert prediction.mask.shape == (50, 77)


def test_the_validation_loss_is_the_mean_over_samples_of_any_size() -> None:
    model = build()
    samples = [sample(64, 96, 0), sample(32, 64, 1, original=(30, 70)), sample(64, 96, 2)]
    with torch.no_grad():
        _, together = model.val_step(samples)
        alone = [model.val_step([s])[1]["loss"] for s in samples]
    torch.testing.assert_close(together["loss"], torch.stack(alone).mean())
    assert together["loss"] == together["loss_seg"]


def test_the_validation_loss_is_that_of_training_where_nothing_is_resized() -> None:
    model = build()
    batch = [sample(64, 96, 0), sample(64, 96, 1)]
    with torch.no_grad():
        data = model.data_preprocessor(batch, True)
        expected = model(data["inputs"], data["samples"], mode="loss")["loss_seg"]
        torch.testing.assert_close(model.val_step(batch)[1]["loss_seg"], expected)


def test_training_inputs_are_padded_to_the_divisor_and_padding_does_not_count() -> None:
    model = build()
    data = model.data_preprocessor([sample(40, 70, 0), sample(64, 50, 1)], True)
    assert data["inputs"].shape == (2, 3, 64, 96)
    assert (data["inputs"][0, :, 40:] == 0).all()
    x = torch.zeros(2, 3, 16, 24)
    loss = model.head.loss(x, data["samples"])["loss_seg"]
    torch.testing.assert_close(loss, torch.log(torch.tensor(3.0)))


def test_bf16_is_used_where_asked_for_and_losses_stay_in_fp32() -> None:
    model, low = build(), build(precision="bf16")
    x = torch.randn(1, 3, 64, 64)
    assert model(x).dtype == torch.float32
    assert low(x).dtype == torch.bfloat16
    data = low.data_preprocessor([sample(64, 64, 0)], True)
    assert low(data["inputs"], data["samples"], mode="loss")["loss_seg"].dtype == torch.float32
    torch.testing.assert_close(low(x).float(), model(x), atol=0.05, rtol=0.05)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="bf16"):
        build(precision="fp16")


ONE_STAGE = {
    "type": "MiT",
    "dims": (8, 16, 16, 24),
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 2, 2, 3),
    "out_indices": (0,),
}


@pytest.mark.parametrize("again", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_compiled_model_computes_the_same_under_the_same_names(again: bool) -> None:
    torch.compiler.reset()
    options: dict[str, Any] = {"backbone": {**ONE_STAGE, "drop_path": 0.0}, "activation_checkpointing": again}
    compiled = build(**options, compile={"backend": "aot_eager"})
    plain = build(**options)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    calls = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for model in (plain, compiled):
        model.backbone.train()
        model(torch.ones(2, 3, 64, 64)).square().sum().backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == calls + 1
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    if again:
        with torch.no_grad():
            x = torch.randn(1, 3, 64, 96)
            torch.testing.assert_close(compiled.eval()(x), plain.eval()(x))


def test_a_missing_compiler_is_said_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda command: None)
    monkeypatch.setenv("CXX", "my-c++")
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler on the CPU, and there is no my-c\+\+"):
        build(compile=True)
    build(compile={"backend": "eager"})


def test_options_of_the_compiler_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"takes no 'dynamc'\. Did you mean 'dynamic'"):
        build(compile={"dynamc": True})


def test_batch_norm_that_would_count_twice_is_not_compiled() -> None:
    backbone = {"type": "cct_2_3x2_32", "out_indices": (0,)}
    build(backbone=backbone, compile={"backend": "eager"}, activation_checkpointing=True)
    backbone = {"type": "xcit_nano_12_p16", "out_indices": (0,)}
    with pytest.raises(ConfigError, match=r"batch norms of XCiT.*leave out"):
        build(backbone=backbone, compile={"backend": "eager"}, activation_checkpointing=True)


def test_an_inference_replaces_the_network_in_evaluation_only() -> None:
    window = {"type": "SlideInference", "window": (32, 32), "stride": (32, 32)}
    plain, sliding = build(), build(inference=window)
    data = [sample(96, 96, 0)]
    assert (plain.test_step(data)[0].mask != sliding.test_step(data)[0].mask).any()
    x = torch.randn(1, 3, 96, 96)
    assert torch.equal(plain(x), sliding(x))
    augmented = build(inference={"type": "TestTimeAugment", "scales": (0.5, 1.0), "inference": window})
    assert augmented.test_step(data)[0].mask.shape == (96, 96)


def detector(inference: str | None) -> DenseModel:
    head = {"type": "MaskRCNNHead", "num_classes": 3, "rpn_channels": 8, "fc_channels": 8, "mask_channels": 8}
    neck, options = {"type": "FPN", "out_channels": 8}, {"type": inference} if inference else None
    return build(neck=neck, head=head, inference=options)


def boxed(height: int, width: int) -> Sample:
    one, masks = torch.ones(1), torch.ones(1, height, width, dtype=torch.uint8)
    target = BoxTarget(torch.tensor([[8.0, 8.0, 40.0, 40.0]]), one.long(), one < 0, one, masks, torch.tensor(1))
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    return Sample(image, target, Meta("x.png", (height, width), (height, width)))


@torch.no_grad()
def test_the_validation_loss_of_a_detector_is_that_of_the_image_as_it_is_whatever_views_it_predicts_from() -> None:
    data = [boxed(64, 96)]
    (_, plain), (predictions, augmented) = detector(None).val_step(data), detector("DetectionTTA").val_step(data)
    assert len(predictions) == 1
    torch.testing.assert_close(augmented, plain)


@pytest.mark.parametrize("inference", ["SlideInference", "TestTimeAugment"])
def test_windows_and_augmentation_of_maps_are_refused_by_a_detector(inference: str) -> None:
    with pytest.raises(ConfigError, match=r"heads that give maps: .* or model\.inference"):
        detector(inference).test_step([boxed(64, 96)])
