"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math


def learning_rate(step: int, *, peak: float, warmup_steps: int, steps: int, final_share: float) -> float:
    """Give the rate of update number `step` (0 to steps - 1): linear warm-up, then half a cosine.

    The first update already moves (rate peak / warmup_steps), update `warmup_steps` has the peak, and the cosine would
    reach `final_share` x peak at update `steps`, the first that is never made.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps if warmup_steps else peak
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * (final_share + (1.0 - final_share) * 0.5 * (1.0 + math.cos(math.pi * progress)))
