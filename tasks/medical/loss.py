"""Loss of UNETR: Dice and cross entropy.

Paper: https://arxiv.org/abs/2103.10504, equation 6; the squares in the denominator are those of
https://arxiv.org/abs/1606.04797
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def dice_and_cross_entropy(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return 1 - the soft Dice, averaged over classes and samples, and the mean cross entropy of a voxel.

    As MONAI's ``DiceCELoss(to_onehot_y=True, softmax=True, squared_pred=True, smooth_nr=0, smooth_dr=1e-6)``, without
    the one-hot truth: of a class that is not there, the loss is 1.

    Args:
        logits: ``(N, K, *space)``, of any precision; the losses are in fp32 at least.
        target: ``(N, *space)``, classes.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(2)
        target = target.flatten(1).long()
        log_probabilities = logits.log_softmax(dim=1)
        probabilities = log_probabilities.exp()
        hits = probabilities.gather(1, target[:, None])[:, 0]
        zeros = logits.new_zeros(logits.shape[:2])
        overlap = zeros.scatter_add(1, target, hits)
        voxels = zeros.scatter_add(1, target, torch.ones_like(hits))
        dice = 2 * overlap / (probabilities.square().sum(dim=2) + voxels + 1e-6)
        return 1 - dice.mean(), F.nll_loss(log_probabilities, target)
