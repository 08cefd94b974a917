"""Names of the tensors of two-stage heads in detectron2."""

import re
from collections.abc import Callable

from torch import Tensor

_NAMES: dict[str, str | Callable[[re.Match[str]], str]] = {
    r"^proposal_generator\.": "",
    r"^roi_heads\.": "roi_head.",
    r"^rpn_head\.conv\.(?:conv(\d)\.)?": lambda m: f"rpn_head.rpn_conv.{m[1]}.conv." if m[1] else "rpn_head.rpn_conv.",
    r"^rpn_head\.objectness_logits\.": "rpn_head.rpn_cls.",
    r"^rpn_head\.anchor_deltas\.": "rpn_head.rpn_reg.",
    r"^roi_head\.box_(?:head|predictor)\.": "roi_head.bbox_head.",
    r"\.conv(\d)\.(norm\.)?(?=\w+$)": lambda m: f".shared_convs.{int(m[1]) - 1}.{'bn' if m[2] else 'conv'}.",
    r"\.fc(\d)\.": lambda m: f".shared_fcs.{int(m[1]) - 1}.",
    r"\.cls_score\.": ".fc_cls.",
    r"\.bbox_pred\.": ".fc_reg.",
    r"\.mask_fcn(\d)\.(norm\.)?": lambda m: f".convs.{int(m[1]) - 1}.{'bn' if m[2] else 'conv'}.",
    r"\.deconv\.": ".upsample.",
    r"\.predictor\.": ".conv_logits.",
}


def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename what detectron2 calls otherwise; other names pass through."""
    return {_translate(key): value for key, value in state.items()}


def _translate(key: str) -> str:
    if not key.startswith(("proposal_generator.", "roi_heads.")):
        return key
    for pattern, name in _NAMES.items():
        key = re.sub(pattern, name, key)
    return key
