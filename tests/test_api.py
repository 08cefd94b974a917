"""Models by name: what is listed, what is built, what is said of it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from densevit.api import create_backbone, create_model, describe_model, list_models
from densevit.errors import ConfigError

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


def test_an_unknown_variant_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="'mvitv2_s'"):
        create_backbone("mvit_v2_s")
    with pytest.raises(ConfigError, match="'classification'"):
        create_model("mit_b0", "clasification")


def test_a_token_is_not_given_to_a_head_that_reads_maps() -> None:
    with pytest.raises(ConfigError, match="token=True"):
        create_model("mit_b0", "segmentation", token=True, out_indices=(0, 1, 2, 3))


def test_a_card_tells_cost_tasks_and_licence() -> None:
    card = describe_model("cmt_ti")
    assert card.params == 9_492_426
    assert card.macs / 1e9 == pytest.approx(0.639, abs=0.002)
    assert (card.img_size, card.weights_licence) == (160, "MIT")
    assert card.tasks == ("classification", "segmentation")


def test_the_list_is_printed() -> None:
    command = [sys.executable, "tools/list_models.py", "mit_b0", "--markdown"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "Error" not in done.stderr
    assert done.stdout.splitlines()[-1].startswith(
        "| mit_b0 | 224 | 3.58 | 0.45 | classification, segmentation | NVIDIA"
    )
