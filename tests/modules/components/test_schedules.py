"""The cycle is torch's with the optimizer's own rate as its peak, and any number of steps works."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from modules.components.schedules import OneCycle, check_steps


def adam(*rates: float) -> torch.optim.Adam:
    return torch.optim.Adam([{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in rates])


def rates(schedule: OneCycleLR, steps: int) -> list[list[float]]:
    found = [schedule.get_last_lr()]
    for _ in range(steps):
        schedule.optimizer.step()
        schedule.step()
        found.append(schedule.get_last_lr())
    return found


def test_equal_to_torch_and_to_the_formula() -> None:
    ours, peers = adam(0.002, 0.1), adam(7.0, 8.0)
    theirs = OneCycleLR(peers, [0.002, 0.1], total_steps=700, pct_start=0.05, cycle_momentum=False)
    found = rates(OneCycle(ours, 700, 0.05), 700)
    assert found == rates(theirs, 700)
    assert ours.param_groups[0]["betas"] == (0.9, 0.999)
    for step in (0, 10, 34, 300, 699):
        up, down = step / 34, (step - 34) / 665
        low, high, share = (1 / 25, 1, up) if step <= 34 else (1, 1 / 250_000, down)
        assert found[step][0] == pytest.approx(0.002 * (high + (low - high) / 2 * (math.cos(math.pi * share) + 1)))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 19, 20, 21, 39, 40, 41])
def test_any_number_of_steps(steps: int) -> None:
    found = [rate for [rate] in rates(OneCycle(adam(0.5), steps, 0.05), steps)]
    assert found[0] == pytest.approx(0.02)
    assert all(0 < rate <= 0.5 for rate in found)
    if steps > 2:
        assert max(found[:steps]) == pytest.approx(0.5, rel=0.002) and found[steps - 1] == pytest.approx(0.5 / 250_000)


def test_a_training_without_an_end_has_no_cycle() -> None:
    for steps in (0, -1):
        with pytest.raises(ValueError, match=f"number of steps, not {steps}: give --trainer.max_steps"):
            OneCycle(adam(1.0), steps)


def test_stored_schedules_that_end_too_early() -> None:
    stored = [{"last_epoch": 3}, {"total_steps": 30}, {"total_steps": 20}, "odd"]
    check_steps(stored, 20)
    check_steps(stored, -1)
    check_steps([{"step_size": 3}], 10**6)
    check_steps("odd", 10)
    with pytest.raises(ValueError, match=r"ends at step 20: go on with --trainer\.max_steps 20 at most"):
        check_steps(stored, 21)
