"""Schedules of the learning rate that several methods share."""

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

FEWEST = 3
"""Steps of the shortest cycle: one up, one at the peak, one down. A shorter run sees its beginning."""


class OneCycle(OneCycleLR):
    """Warm-up by a cosine from 1/25 of the optimizer's own rate to that rate, then down to 1/250,000 of it.

    torch's schedule takes the peak as a second value beside the optimizer's rate, which then has no effect, and
    divides by zero where the warm-up is one step long. Here the rate has one home, and the warm-up lasts two steps at
    least. States are those of ``OneCycleLR``.

    Args:
        optimizer: its rates are the peaks.
        total_steps: optimizer steps of the whole training.
        pct_start: share of the steps that warm up.

    Raises:
        ValueError: for a training without a number of steps.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, pct_start: float = 0.3) -> None:
        if total_steps < 1:
            raise ValueError(f"the schedule needs a number of steps, not {total_steps}: give --trainer.max_steps")
        peaks = [group["lr"] for group in optimizer.param_groups]
        steps = max(total_steps, FEWEST)
        super().__init__(optimizer, peaks, steps, pct_start=max(pct_start, 2 / steps), cycle_momentum=False)


def check_steps(schedules: Any, max_steps: int) -> None:
    """Raise a ValueError if a training of ``max_steps`` is to go on with stored ``schedules`` that end before."""
    known = [state for state in schedules if isinstance(state, dict)] if isinstance(schedules, list) else []
    ends = [state["total_steps"] for state in known if isinstance(state.get("total_steps"), int)]
    if ends and max_steps > min(ends):
        raise ValueError(
            f"the checkpoint's learning rate schedule ends at step {min(ends)}: go on with --trainer.max_steps "
            f"{min(ends)} at most, or begin a new run with {max_steps}"
        )
