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
_TRANSFORMERS = (
    (r"^vit\.", ""),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^(?:encoder\.layer|layers)\.(\d+)\.(?=layernorm_|attention\.|intermediate\.|output\.|mlp\.)", r"blocks.\1."),
    (r"^layernorm\.", "norm."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.attention\.", ".attn."),
    (r"\.attention\.q_proj\.", ".attn.query."),
    (r"\.attention\.k_proj\.", ".attn.key."),
    (r"\.attention\.v_proj\.", ".attn.value."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
_TORCHVISION = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"^encoder\.ln\.", "norm."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
)
# What is joined to one layer of ours.
JOINED = {"qkv": ("query", "key", "value"), "kv": ("key", "value"), "q": ("query",)}


def from_jax(state: State) -> State:
    """Return tensors of JAX, "/" in their names read as ".", under our names; others pass through."""
    return _join({rename(key, NAMES): _transpose(key, value) for key, value in state.items()})


def from_libraries(state: State) -> State:
    """Return tensors of transformers, in its files or its models, and of torchvision under our names."""
    return _join({rename(key, _TRANSFORMERS + _TORCHVISION): value for key, value in state.items()})


def _join(renamed: State) -> State:
    """Join queries, keys and values to the layers that we have, where all parts of one are there."""
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
        value = value.flatten(-2) if value.ndim > 1 else value  # (in, heads, out) or (heads, out); not of JAX: (out,)
    elif key.endswith(".out.kernel"):
        value = value.flatten(0, 1)  # (heads, in, out)
    if key.endswith("kernel"):
        return value.permute(3, 2, 0, 1) if value.ndim == 4 else value.mT
    return value


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number
