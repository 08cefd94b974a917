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
_MMACTION2 = (
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^transformer_layers\.layers\.", "blocks."),
    (r"\.ffns\.0\.norm\.|\.norms\.1\.", ".norm2."),
    (r"\.ffns\.0\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffns\.0\.layers\.1\.", ".mlp.fc2."),
    (r"\.attentions\.\d\.temporal_fc\.", ".temporal_fc."),
    (r"\.norms\.0\.", ".norm1."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
)


def official_names(state: State) -> State:
    """Rename the tensors of transformers and mmaction2, and of a Vision Transformer in JAX."""
    divided = any(".attentions.1." in key for key in state)  # of mmaction2: attention over time is the first of two
    over = {"0": "temporal_", "1": ""} if divided else {"0": ""}
    patterns = (
        *_OFFICIAL,
        *_TRANSFORMERS,
        *_MMACTION2,
        (r"\.attentions\.(\d)\.norm\.", lambda match: f".{over[match[1]]}norm1."),
        (r"\.attentions\.(\d)\.attn\.", lambda match: f".{over[match[1]]}attn."),
    )
    return from_jax({rename(key, patterns): value for key, value in state.items()})


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
