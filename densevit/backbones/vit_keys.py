"""The names and layouts of a Vision Transformer in JAX, and ours, which are timm's.

In JAX kernels are ``(in, out)`` and ``(height, width, in, out)``, and attention keeps its heads apart. One to one:

    embedding                                           patch_embed.proj
    pos_embedding                                       pos_embed
    cls                                                 cls_token
    Transformer/encoderblock_0/LayerNorm_0, LayerNorm_1 blocks.0.norm1, blocks.0.norm2
    .../MultiHeadDotProductAttention_0/query,key,value  blocks.0.attn.qkv, the three in this order
    .../MultiHeadDotProductAttention_0/out              blocks.0.attn.proj
    .../MlpBlock_0/Dense_0, Dense_1                     blocks.0.mlp.fc1, blocks.0.mlp.fc2
    Transformer/encoder_norm                            norm
    MAPHead_0/probe                                     attn_pool.latent
    MAPHead_0/MultiHeadDotProductAttention_0/query      attn_pool.q
    MAPHead_0/MultiHeadDotProductAttention_0/key,value  attn_pool.kv, both in this order
    MAPHead_0/... out, LayerNorm_0, MlpBlock_0          attn_pool.proj, attn_pool.norm, attn_pool.mlp
    pre_logits                                          pre_logits

A kernel or scale is our weight. Files from before big_vision number the parts of a block 0 to 3, and keep the
positions in Transformer/posembed_input.
"""

import math
import re

import torch
from torch import Tensor

from densevit.backbones.rename import rename

State = dict[str, Tensor]

NAMES = (
    (r"^(Transformer\.)?(posembed_input\.)?pos_embedding$", "pos_embed"),
    (r"^cls$", "cls_token"),
    (r"^embedding\.", "patch_embed.proj."),
    (r"^Transformer\.encoder_norm\.", "norm."),
    (r"^Transformer\.encoderblock_(\d+)\.LayerNorm_0\.", r"blocks.\1.norm1."),
    (r"^Transformer\.encoderblock_(\d+)\.LayerNorm_[12]\.", r"blocks.\1.norm2."),
    (r"^Transformer\.encoderblock_(\d+)\.MultiHeadDotProductAttention_[01]\.", r"blocks.\1.attn."),
    (r"^Transformer\.encoderblock_(\d+)\.", r"blocks.\1."),
    (r"^MAPHead_0\.probe$", "attn_pool.latent"),
    (r"^MAPHead_0\.LayerNorm_0\.", "attn_pool.norm."),
    (r"^MAPHead_0\.(MultiHeadDotProductAttention_0\.)?", "attn_pool."),
    (r"\.MlpBlock_[03]\.Dense_0\.", ".mlp.fc1."),
    (r"\.MlpBlock_[03]\.Dense_1\.", ".mlp.fc2."),
    (r"(attn|attn_pool)\.out\.", r"\1.proj."),
    (r"\.(kernel|scale)$", ".weight"),
)
# What is joined to one layer of ours.
JOINED = {"qkv": ("query", "key", "value"), "kv": ("key", "value"), "q": ("query",)}


def from_jax(state: State) -> State:
    """Return tensors of JAX, "/" in their names read as ".", under our names; others pass through."""
    renamed = {rename(key, NAMES): _transpose(key, value) for key, value in state.items()}
    for name in [key for key in renamed if re.search(r"\.query\.\w+$", key)]:
        start, end = name.split("query")
        for layer in ("q", "kv") if start == "attn_pool." else ("qkv",):
            parts = [f"{start}{part}{end}" for part in JOINED[layer]]
            if all(part in renamed for part in parts):
                renamed[f"{start}{layer}{end}"] = torch.cat([renamed.pop(part) for part in parts])
    return renamed


def join_class_position(state: State) -> State:
    """Add the position of the class token, which timm and old files have and we do not, to the token itself."""
    token, positions = state.get("cls_token"), state.get("pos_embed")
    if token is None or positions is None or not _is_square(positions.shape[1] - 1):
        return state
    return {**state, "cls_token": token + positions[:, :1], "pos_embed": positions[:, 1:]}


def _transpose(key: str, value: Tensor) -> Tensor:
    if re.search(r"\.(query|key|value)\.(kernel|bias)$", key):
        value = value.flatten(-2)  # (in, heads, out) or (heads, out)
    elif key.endswith(".out.kernel"):
        value = value.flatten(0, 1)  # (heads, in, out)
    if key.endswith("kernel"):
        return value.permute(3, 2, 0, 1) if value.ndim == 4 else value.mT
    return value


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number
