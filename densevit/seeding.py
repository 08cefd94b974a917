"""Seeds that are functions of what they are for, never of what ran before."""

import numpy as np


def mix_seed(*parts: int) -> int:
    """Return a seed for `torch.manual_seed` from non-negative integers such as run seed, epoch and index."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
