"""Models by name: what is listed, what is built, what is said of it."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from densevit.api import HEAD_OF_TASK, create_backbone, create_model, describe_model, list_models
from densevit.errors import ConfigError
from densevit.features import Backbone, Features, FeatureSpec
from densevit.registry import BACKBONES

ROOT = Path(__file__).parents[1]


def test_variants_are_listed_by_pattern() -> None:
    assert list_models("cmt_?") == ["cmt_b", "cmt_s"]
    assert len(list_models("xcit*")) == 14
    assert {"mvitv1_b", "mvitv2_t", "mit_b5"} <= set(list_models())


def test_classes_and_adapters_are_not_listed() -> None:
    assert not {"CMT", "MiT", "MViT", "XCiT", "timm"} & set(list_models())


def test_a_model_classifies_unless_told_otherwise() -> None:
    model = create_model("mit_b0", num_classes=7).eval()
    assert model(torch.randn(2, 3, 64, 96)).shape == (2, 7)
    assert create_model("mit_b0", "segmentation", num_classes=7).eval()(torch.randn(1, 3, 64, 96)).shape == (
        1,
        7,
        16,
        24,
    )


def test_a_backbone_without_a_token_classifies_on_its_last_map() -> None:
    model = create_model("mit_b0", num_classes=7, token=False, out_indices=(3,)).eval()
    assert model(torch.randn(2, 3, 64, 96)).shape == (2, 7)


@pytest.mark.parametrize("name", ["vit_lite_2_4_32", "cct_2_3x2_32", "convmixer_256_8"])
def test_a_backbone_of_one_stride_gets_a_pyramid_for_dense_tasks(name: str) -> None:
    model = create_model(name, "segmentation", num_classes=7).eval()
    assert [spec.stride[0] for spec in model.neck.specs] == [4, 8, 16, 32]
    assert model(torch.randn(1, 3, 33, 64)).shape == (1, 7, 9, 16)
    assert (
        create_model(name, "segmentation", neck={"type": "SimplePyramid", "strides": (8, 16)}).neck.specs[0].level == 3
    )
    assert create_model("mit_b0", "segmentation").neck is None


RETINA, MASK = (8, 16, 32, 64, 128), (4, 8, 16, 32, 64)


@pytest.mark.parametrize(
    ("name", "task", "strides"),
    [
        ("mit_b0", "detection", RETINA),
        ("mit_b0", "instance_segmentation", MASK),
        ("mobilevit_xxs", "detection", RETINA),
        ("xcit_nano_12_p16", "detection", RETINA),
        ("vit_lite_2_4_32", "detection", RETINA),
        ("vit_lite_2_4_32", "instance_segmentation", MASK),
    ],
)
def test_a_detector_gets_the_levels_that_it_is_usually_given(name: str, task: str, strides: tuple[int, ...]) -> None:
    model = create_model(name, task, num_classes=7)
    assert [spec.stride for spec in model.neck.specs] == [(stride, stride) for stride in strides]
    assert (type(model.neck).__name__ == "FPN") == (name != "vit_lite_2_4_32")


@pytest.mark.parametrize(
    ("head", "strides"), [("RetinaHead", [16, 32, 64, 128, 256]), ("MaskRCNNHead", [16, 32, 64, 128, 256])]
)
def test_a_detector_reads_the_maps_that_there_are(head: str, strides: list[int]) -> None:
    model = create_model("mit_b0", "detection", head={"type": head}, out_indices=(2, 3))
    assert [spec.stride[0] for spec in model.neck.specs] == strides


def test_a_detector_on_fine_maps_only_adds_coarser_ones() -> None:
    model = create_model("mit_b0", "detection", out_indices=(0, 1))
    assert [spec.stride[0] for spec in model.neck.specs] == list(RETINA)
    assert [spec.stride[0] for spec in model.backbone.specs] == [8]


def test_a_neck_that_is_given_is_kept() -> None:
    neck = {"type": "FPN", "out_channels": 32, "num_outs": 4}
    model = create_model("mit_b0", "detection", neck=neck)
    assert [(spec.channels, spec.stride[0]) for spec in model.neck.specs] == [(32, 4), (32, 8), (32, 16), (32, 32)]


def test_a_backbone_that_cannot_leave_out_maps_is_read_from_the_right_one_on() -> None:
    @BACKBONES.register_module(name="two_maps")
    class TwoMaps(Backbone):
        divisor = (8, 8)

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.down = torch.nn.Conv2d(3, 8, 4, 4), torch.nn.Conv2d(8, 16, 2, 2)
            self.specs = (FeatureSpec(8, (4, 4)), FeatureSpec(16, (8, 8)))

        def forward(self, x: torch.Tensor) -> Features:
            return Features((self.stem(x), self.down(self.stem(x))))

    try:
        model = create_model("two_maps", "detection", num_classes=2).eval()
    finally:
        BACKBONES.module_dict.pop("two_maps")
    assert model.neck.start_level == 1
    assert [tuple(x.shape[2:]) for x in model(torch.randn(1, 3, 64, 64)).logits] == [
        (8, 8),
        (4, 4),
        (2, 2),
        (1, 1),
        (1, 1),
    ]


def test_an_unknown_variant_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="'mvitv2_s'"):
        create_backbone("mvit_v2_s")
    with pytest.raises(ConfigError, match="'classification'"):
        create_model("mit_b0", "clasification")


@pytest.mark.parametrize("options", [{"num_classes": 0}, {"num_classes": -1}, {"head": {"num_classes": 0}}])
def test_a_model_without_classes_is_refused_and_the_way_to_a_backbone_named(options: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match=r"num_classes must be at least 1, not .*densevit\.create_backbone\('mit_b0'\)"
    ):
        create_model("mit_b0", **options)


@pytest.mark.parametrize(
    ("name", "task", "space"), [("mit_b0", "classification", (64, 64)), ("unetr_vit_s16", "medical", (32, 32, 32))]
)
def test_inputs_of_other_channels_are_refused_with_the_key_to_set(name: str, task: str, space: tuple[int, ...]) -> None:
    model = create_model(name, task, num_classes=2, in_channels=2)
    with pytest.raises(
        ConfigError, match=r"\(N, 2, .*got \(1, 1, .*model\.backbone\.in_channels.*create_model.*: 1 if"
    ):
        model(torch.zeros(1, 1, *space))
    with pytest.raises(ConfigError, match=r"expected clips .* got \(1, 1, .*model\.backbone\.in_channels"):
        create_backbone("timesformer_base", depth=1)(torch.zeros(1, 1, 2, 32, 32))


def test_a_token_is_not_given_to_a_head_that_reads_maps() -> None:
    with pytest.raises(ConfigError, match="token=True"):
        create_model("mit_b0", "segmentation", token=True, out_indices=(0, 1, 2, 3))


def test_a_card_tells_cost_tasks_and_licence() -> None:
    card = describe_model("cmt_ti")
    assert card.params == 9_492_426
    assert card.macs / 1e9 == pytest.approx(0.639, abs=0.002)
    assert (card.img_size, card.weights_licence) == (160, "MIT")
    assert card.tasks == ("classification", "segmentation", "detection", "instance_segmentation", "video", "medical")


def test_the_card_of_a_backbone_of_clips_counts_a_clip_and_has_no_task_of_images() -> None:
    card = describe_model("timesformer_base")
    assert (card.num_frames, card.img_size) == (8, 224)
    assert card.macs / 1e9 == pytest.approx(195.83, abs=0.01)
    assert not {"segmentation", "detection", "instance_segmentation"} & set(card.tasks)
    assert describe_model("mit_b0").num_frames == 0


def test_a_card_whose_macs_are_not_counted_is_the_same_otherwise() -> None:
    quick, whole = describe_model("mit_b0", count_macs=False), describe_model("mit_b0")
    assert quick.macs is None
    assert dataclasses.replace(quick, macs=whole.macs) == whole


@pytest.mark.parametrize("name", ["mit_b0", "cct_2_3x2_32", "timesformer_base"])
def test_the_tasks_of_a_card_are_those_that_can_be_built(name: str) -> None:
    with torch.device("meta"):
        for task in HEAD_OF_TASK:
            if task in describe_model(name, count_macs=False).tasks:
                create_model(name, task)
            else:
                with pytest.raises(ConfigError):
                    create_model(name, task)


def test_a_backbone_of_clips_is_refused_by_tasks_of_images_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="timesformer_base is a backbone of clips or volumes, and segmentation is a"):
        create_model("timesformer_base", "segmentation", neck={"type": "FPN"})


def test_a_backbone_of_images_looks_at_the_slices_of_volumes() -> None:
    model = create_model("mit_b0", "medical", 3, in_channels=1, head={"feature_size": 4})
    assert type(model.backbone).__name__ == "Framewise"
    assert model.head.strides == [(1, 1, 1), (1, 2, 2), (1, 4, 4), (1, 8, 8), (1, 16, 16), (1, 32, 32)]
    assert model(torch.zeros(1, 1, 2, 33, 40)).shape == (1, 3, 2, 33, 40)
    assert create_model("mit_b0", "medical", 3, axes=3).head.strides[-1] == (32, 32, 32)


def test_the_list_is_printed() -> None:
    command = [sys.executable, "tools/list_models.py", "mit_b0", "--macs", "--markdown"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "Error" not in done.stderr
    assert done.stdout.splitlines()[-1].startswith("| mit_b0 | 224 | 3.58 | 0.45 | all | NVIDIA")
