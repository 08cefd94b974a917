"""Weights in files of NumPy, as those of JAX are released."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from densevit.backbones import ViT
from densevit.errors import CheckpointError
from densevit.weights import load_weights, read_file


def tiny() -> ViT:
    torch.manual_seed(0)
    return ViT(dim=16, depth=1, num_heads=2, hidden=32, img_size=32, token=True)


def official(backbone: ViT) -> dict[str, Tensor]:
    """Return random weights under their names in big_vision."""
    torch.manual_seed(1)
    block, attention = "Transformer/encoderblock_0", "MultiHeadDotProductAttention_0"
    shapes = {"embedding/kernel": (16, 16, 3, 16), "embedding/bias": (16,), "pos_embedding": (1, 4, 16)}
    for norm in ("encoder_norm", "encoderblock_0/LayerNorm_0", "encoderblock_0/LayerNorm_1"):
        shapes |= {f"Transformer/{norm}/scale": (16,), f"Transformer/{norm}/bias": (16,)}
    for part in ("query", "key", "value"):
        shapes |= {f"{block}/{attention}/{part}/kernel": (16, 2, 8), f"{block}/{attention}/{part}/bias": (2, 8)}
    shapes |= {f"{block}/{attention}/out/kernel": (2, 8, 16), f"{block}/{attention}/out/bias": (16,)}
    for i, (a, b) in enumerate([(16, 32), (32, 16)]):
        shapes |= {f"{block}/MlpBlock_0/Dense_{i}/kernel": (a, b), f"{block}/MlpBlock_0/Dense_{i}/bias": (b,)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("start", ["", "params/", "opt/target/"])
def test_weights_are_found_whatever_is_before_their_names(start: str, tmp_path: Path) -> None:
    backbone = tiny()
    arrays = {start + name: value.numpy() for name, value in official(backbone).items()}
    extra = {"opt/state/step": np.array(7)} if start else {}
    np.savez(tmp_path / "vit.npz", **arrays, **extra)
    report = load_weights(backbone, tmp_path / "vit.npz", verbose=False)
    assert report.missing == report.unexpected == []
    x = torch.randn(1, 3, 16, 16)
    kernel = arrays[f"{start}embedding/kernel"]
    expected = np.einsum("chw,hwco->o", x[0].numpy(), kernel) + arrays[f"{start}embedding/bias"]
    np.testing.assert_allclose(backbone.patch_embed.proj(x).flatten().detach().numpy(), expected, rtol=1e-4, atol=1e-4)


def test_bfloat16_has_no_name_in_numpy_but_is_read(tmp_path: Path) -> None:
    weights = {name: value.bfloat16() for name, value in official(tiny()).items()}
    raw = {name: value.view(torch.int16).numpy().view("V2") for name, value in weights.items()}
    np.savez(tmp_path / "vit.npz", **raw)
    read = read_file(tmp_path / "vit.npz")
    assert all(torch.equal(read[name], value) for name, value in weights.items())
    backbone = tiny()
    load_weights(backbone, tmp_path / "vit.npz", verbose=False)
    torch.testing.assert_close(backbone.pos_embed.data, weights["pos_embedding"].float())


def test_a_pickle_in_a_file_is_named_and_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "vit.npz", good=np.ones(3), bad=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CheckpointError, match=r"vit\.npz holds bad as a pickle"):
        read_file(tmp_path / "vit.npz")
    (tmp_path / "plain.npz").write_bytes(np.array([{"a": 1}], dtype=object).dumps())
    with pytest.raises(CheckpointError, match=r"plain\.npz is corrupt or no checkpoint"):
        read_file(tmp_path / "plain.npz")


def test_truncated_files_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "vit.npz", a=np.ones(1000))
    whole = (tmp_path / "vit.npz").read_bytes()
    for content in (whole[: len(whole) // 2], whole[:5], b"", b"<html>not found</html>"):
        (tmp_path / "vit.npz").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"vit\.npz is corrupt"):
            read_file(tmp_path / "vit.npz")


def test_incomplete_attention_is_missing_not_a_crash() -> None:
    weights = official(tiny())
    del weights["Transformer/encoderblock_0/MultiHeadDotProductAttention_0/key/kernel"]
    with pytest.raises(CheckpointError, match=r"lacks 1 of .*blocks\.0\.attn\.qkv\.weight"):
        load_weights(tiny(), weights)
