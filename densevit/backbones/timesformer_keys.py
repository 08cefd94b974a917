"""Names of TimeSformer's tensors elsewhere, and its start from a model of images."""

import math

import torch
from torch import Tensor

from densevit.backbones.rename import rename
from densevit.backbones.vit_keys import from_jax

State = dict[str, Tensor]

_OFFICIAL = ((r"^model\.", ""),)
_TRANSFORMERS = (
    (r"^timesformer\.", ""),
    (r"^embeddings\.", ""),
    (r"^position_embeddings$", "pos_embed"),
    (r"^time_embeddings$", "time_embed"),
    (r"^patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"^layernorm\.", "norm."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.temporal_layernorm\.", ".temporal_norm1."),
    (r"\.temporal_dense\.", ".temporal_fc."),
    (r"\.(temporal_)?attention\.attention\.", r".\1attn."),
    (r"\.(temporal_)?attention\.output\.dense\.", r".\1attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)


def official_names(state: State) -> State:
    """Rename the tensors of transformers, and of a Vision Transformer in JAX."""
    return from_jax({rename(key, _OFFICIAL + _TRANSFORMERS): value for key, value in state.items()})


def from_image_model(state: State, own: State) -> State:
    """Complete the state dict of a Vision Transformer by what a TimeSformer has beside it; pass on others.

    Attention over time and its norm are copies of those over space. The layer after it, and the positions in time,
    are zero. The class token has the position zero where the image model has none.

    Args:
        state: Tensors by our names.
        own: State dict of the TimeSformer.
    """
    positions = state.get("pos_embed")
    if positions is None or any(key == "time_embed" or ".temporal_" in key for key in state):
        return state
    started = dict(state)
    if _is_grid(positions.shape[1], own["pos_embed"].shape[1] - 1):
        started["pos_embed"] = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    for key, value in own.items():
        if ".temporal_fc." in key or key == "time_embed":
            started[key] = torch.zeros_like(value)
        elif ".temporal_" in key and (source := key.replace("temporal_", "")) in state:
            started[key] = state[source]
    return started


def _is_grid(tokens: int, cells: int) -> bool:
    """Whether there are as many tokens as cells in our grid or in a square one, and none for the class token."""
    return tokens == cells or (tokens != cells + 1 and math.isqrt(tokens) ** 2 == tokens)
