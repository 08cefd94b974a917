"""The classifier reads what it is told to, its loss is the cross entropy, and known layouts load into it."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from densevit.errors import ConfigError
from densevit.features import Features, FeatureSpec
from densevit.model import DenseModel
from densevit.structures import ClassTarget, Meta, Sample
from densevit.tasks.classification.head import ClassificationHead
from densevit.weights import load_weights

SPECS = (FeatureSpec(4, (8, 8)), FeatureSpec(6, (16, 16)))
MIT = {"type": "MiT", "dims": (8, 16, 16, 24), "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 3), "token": True}


def samples(labels: Sequence[Tensor]) -> list[Sample]:
    meta = Meta("", (8, 8), (8, 8))
    return [Sample(torch.zeros(3, 8, 8, dtype=torch.uint8), ClassTarget(label), meta) for label in labels]


def test_without_a_token_the_mean_of_the_last_map_is_classified() -> None:
    head = ClassificationHead(SPECS, num_classes=5)
    maps = tuple(torch.randn(2, spec.channels, 4, 3) for spec in SPECS)
    torch.testing.assert_close(head(Features(maps)), head.fc(maps[-1].mean(dim=(2, 3))))


def test_volumes_are_averaged_over_all_their_axes() -> None:
    head = ClassificationHead((FeatureSpec(6, (2, 16, 16)),), num_classes=5)
    x = torch.randn(2, 6, 3, 4, 5)
    torch.testing.assert_close(head(Features((x,))), head.fc(x.flatten(2).mean(dim=2)))


def test_a_token_is_read_in_place_of_maps() -> None:
    head = ClassificationHead(SPECS, num_classes=5, token_channels=7)
    token = torch.randn(2, 7)
    torch.testing.assert_close(head(Features((), token)), head.fc(token))


def test_a_backbone_that_gives_nothing_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="token=True or out_indices"):
        ClassificationHead((), num_classes=5)
    with pytest.raises(ConfigError, match="label_smoothing"):
        ClassificationHead(SPECS, num_classes=5, label_smoothing=1.0)
    with pytest.raises(ConfigError, match="sigmoid"):
        ClassificationHead(SPECS, num_classes=5, loss="focal")


def test_the_classifier_starts_small_and_without_bias() -> None:
    torch.manual_seed(0)
    for scale in (1.0, 0.01):
        head = ClassificationHead(SPECS, num_classes=1000, token_channels=100, init_scale=scale)
        assert head.fc.weight.std().item() == pytest.approx(0.02 * scale, rel=0.02)
        assert head.fc.bias.abs().max() == 0
    assert not ClassificationHead(SPECS, num_classes=5, init_scale=0.0).fc.weight.any()


def test_the_classifier_starts_with_the_bias_that_is_asked_for() -> None:
    head = ClassificationHead(SPECS, num_classes=5, init_bias=-6.9)
    torch.testing.assert_close(head.fc.bias.detach(), torch.full((5,), -6.9))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("training", [False, True])
def test_labels_give_cross_entropy_smoothed_in_training_only(smoothing: float, training: bool) -> None:
    head = ClassificationHead(SPECS, num_classes=5, label_smoothing=smoothing).train(training)
    logits, labels = torch.randn(4, 5), torch.tensor([0, 4, 2, 2])
    found = head.loss(logits, samples(list(labels)))
    truth = F.one_hot(labels, 5).float()
    if training:
        truth = (1 - smoothing) * truth + smoothing / 5
    torch.testing.assert_close(found["loss_cls"], -(truth * logits.log_softmax(1)).sum(1).mean())
    torch.testing.assert_close(found["acc"], (logits.argmax(1) == labels).float().mean())


def test_probabilities_of_a_mixed_batch_are_labels_too() -> None:
    head = ClassificationHead(SPECS, num_classes=5)
    logits, truth = torch.randn(4, 5), torch.rand(4, 5).softmax(1)
    found = head.loss(logits, samples(list(truth)))
    torch.testing.assert_close(found["loss_cls"], -(truth * logits.log_softmax(1)).sum(1).mean())
    torch.testing.assert_close(found["acc"], (logits.argmax(1) == truth.argmax(1)).float().mean())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_classes_by_themselves_give_the_sum_of_their_binary_cross_entropies(mixed: bool, training: bool) -> None:
    head = ClassificationHead(SPECS, num_classes=5, loss="sigmoid", label_smoothing=0.1).train(training)
    logits, labels = torch.randn(4, 5), torch.tensor([0, 4, 2, 2])
    truth = torch.rand(4, 5).softmax(1) if mixed else F.one_hot(labels, 5).float()
    found = head.loss(logits, samples(list(truth if mixed else labels)))
    torch.testing.assert_close(found["acc"], (logits.argmax(1) == truth.argmax(1)).float().mean())
    if training:
        truth = 0.9 * truth + 0.1 / 5
    p = logits.sigmoid()
    torch.testing.assert_close(found["loss_cls"], -(truth * p.log() + (1 - truth) * (1 - p).log()).sum(1).mean())


def test_scores_of_classes_by_themselves_are_their_own_probabilities() -> None:
    head = ClassificationHead(SPECS, num_classes=5, loss="sigmoid")
    logits = torch.randn(3, 5)
    found = torch.stack([p.scores for p in head.predict(logits, [Meta("", (8, 8), (8, 8))] * 3)])
    torch.testing.assert_close(found, 1 / (1 + (-logits).exp()))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_the_loss_of_low_precision_logits_is_computed_in_fp32(kind: str) -> None:
    head = ClassificationHead(SPECS, num_classes=5, loss=kind)
    logits = torch.randn(4, 5).bfloat16()
    for target in (torch.randint(5, (4,)), torch.rand(4, 5).softmax(1)):
        loss = head.loss(logits, samples(list(target)))["loss_cls"]
        assert loss.dtype == torch.float32
        assert torch.equal(loss, head.loss(logits.float(), samples(list(target)))["loss_cls"])


def test_a_prediction_holds_probabilities() -> None:
    head = ClassificationHead(SPECS, num_classes=5)
    logits = torch.randn(3, 5)
    predictions = head.predict(logits.bfloat16(), [Meta("", (8, 8), (8, 8))] * 3)
    found = torch.stack([p.scores for p in predictions])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, logits.bfloat16().float().softmax(1))


@pytest.mark.parametrize("names", ["head.", "head.projection.", "head.fc.", "head.1.", "classifier.", "classifier.fc."])
def test_classifiers_of_official_timm_and_torchvision_models_are_loaded(names: str) -> None:
    model = DenseModel(MIT, {"type": "ClassificationHead", "num_classes": 5})
    weight, bias = torch.randn(5, 24), torch.randn(5)
    backbone = {key: value for key, value in model.backbone.state_dict().items()}
    load_weights(model, {**backbone, f"{names}weight": weight, f"{names}bias": bias}, verbose=False)
    assert torch.equal(model.head.state_dict()["fc.weight"], weight)
    assert torch.equal(model.head.state_dict()["fc.bias"], bias)


def test_a_classifier_of_other_classes_is_reported_and_left_out() -> None:
    model = DenseModel(MIT, {"type": "ClassificationHead", "num_classes": 5})
    before = model.head.state_dict()["fc.weight"].clone()
    state = {**model.backbone.state_dict(), "head.weight": torch.randn(1000, 24), "head.bias": torch.randn(1000)}
    report = load_weights(model, state, verbose=False)
    assert report.skipped == {name: "1000 -> 5 classes" for name in ("head.fc.weight", "head.fc.bias")}
    assert torch.equal(model.head.state_dict()["fc.weight"], before)
