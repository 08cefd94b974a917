"""Names of MViT's tensors in other libraries."""

import re

from torch import Tensor

from densevit.backbones.rename import rename

_TIMM = {r"shortcut_proj_(attn|mlp)\.": "proj."}
_TORCHVISION = {
    r"^conv_proj\.": "patch_embed.proj.",
    r"^pos_encoding\.class_token$": "cls_token",
    r"^pos_encoding\.(spatial|temporal|class)_pos$": r"pos_embed_\1",
    r"(pool_[qkv])\.pool\.": r"\1.",
    r"pool_([qkv])\.norm_act\.0\.": r"norm_\1.",
    r"attn\.project\.0\.": "attn.proj.",
    r"(blocks\.\d+)\.project\.": r"\1.proj.",
    r"mlp\.0\.": "mlp.fc1.",
    r"mlp\.3\.": "mlp.fc2.",
}
_MMACTION2 = {r"^patch_embed\.projection\.": "patch_embed.proj.", r"^norm3\.": "norm."}
_TIMM_BLOCK = re.compile(r"^stages\.(\d+)\.blocks\.(\d+)\.")


def official_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename what timm, torchvision and mmaction2 call otherwise, and drop the axis of time that images do not have."""
    starts = _first_blocks(state)
    renamed = {}
    for key, value in state.items():
        key = _TIMM_BLOCK.sub(lambda match: f"blocks.{starts[int(match[1])] + int(match[2])}.", key)
        key = rename(key, (_TIMM | _TORCHVISION | _MMACTION2).items())
        if key in ("cls_token", "pos_embed_spatial", "pos_embed_temporal", "pos_embed_class"):
            value = value.reshape(1, -1, value.shape[-1])
        renamed[key] = value
    if all(value.shape[2] == 1 for value in renamed.values() if value.ndim == 5):
        renamed = {key: value.squeeze(2) if value.ndim == 5 else value for key, value in renamed.items()}
    return renamed


def _first_blocks(state: dict[str, Tensor]) -> list[int]:
    """Return how many blocks come before each stage, as far as timm's names tell."""
    blocks = {(int(match[1]), int(match[2])) for key in state if (match := _TIMM_BLOCK.match(key))}
    return [sum(stage < i for stage, _ in blocks) for i in range(1 + max((stage for stage, _ in blocks), default=-1))]
