"""``early_terminate: hyperband`` as wandb defines it: at each band a run must be among the best 1/eta of those there.

Source: Li et al., Hyperband, JMLR 2018, in the form of wandb's sweeps engine (pip: sweeps 0.3.0). An iteration is one
logged value of the sweep's metric.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from cli.sweeps.sweep_file import is_number, require_known

KEYS = ("type", "min_iter", "max_iter", "s", "eta", "strict")
LAST_BAND = 1e9
"""No run logs as many values."""


class Hyperband(NamedTuple):
    bands: tuple[int, ...]
    """Iterations at which runs are compared, rising."""
    eta: float
    strict: bool
    """Judge a run by its value at the band rather than by its best until now."""
    maximize: bool

    def _costs(self, history: Sequence[float]) -> list[float]:
        """The numbers of a run with less being better; NaN and infinity are no values of a metric."""
        return [-value if self.maximize else value for value in history if math.isfinite(value)]

    def threshold(self, histories: Sequence[Sequence[float]], band: int) -> float:
        """The worst cost that the best 1/eta of the runs had at the band; infinity if none got there."""
        costs = sorted(costs[band - 1] for run in histories if len(costs := self._costs(run)) >= band)
        return costs[int(len(costs) / self.eta)] if costs else math.inf

    def stops(self, history: Sequence[float], histories: Sequence[Sequence[float]]) -> int | None:
        """The band at which a run is to end, or None.

        Args:
            history: the run's values of the metric, in the order in which they were logged.
            histories: those of all runs of the sweep, this one among them.
        """
        costs = self._costs(history)
        reached = [band for band in self.bands if band <= len(costs)]
        if not reached:
            return None
        judged = costs[reached[-1] - 1] if self.strict else min(costs)
        return reached[-1] if judged > self.threshold(histories, reached[-1]) else None


def bands_of(options: dict[str, Any], eta: float) -> tuple[int, ...]:
    """max_iter / eta^k for k up to s, or min_iter eta^k."""
    bands: Iterable[float]
    if "max_iter" in options:
        bands = (options["max_iter"] / eta**k for k in range(1, int(options["s"]) + 1))
    else:
        every = (options["min_iter"] * eta**k for k in itertools.count())
        bands = itertools.takewhile(lambda band: band <= LAST_BAND, every)
    return tuple(sorted({int(band) for band in bands if band >= 1}))


def hyperband(sweep: dict[str, Any]) -> Hyperband | None:
    """What a checked sweep file says of early termination; None if it says nothing.

    Raises:
        ValueError: for what wandb would refuse.
    """
    options = sweep.get("early_terminate")
    if not options:
        return None
    require_known("early_terminate", options, KEYS)
    if options.get("type") != "hyperband":
        raise ValueError(f"early_terminate knows type: hyperband, not {options.get('type')!r}")
    if not ("min_iter" in options or {"max_iter", "s"} <= options.keys()):
        raise ValueError("early_terminate needs min_iter, or max_iter and s")
    for name in ("min_iter", "max_iter", "s", "eta"):
        if name in options and not (is_number(options[name]) and options[name] > (name == "eta")):
            raise ValueError(f"{name} of early_terminate must be above {int(name == 'eta')}, not {options[name]!r}")
    eta = options.get("eta", 3)
    if not (bands := bands_of(options, eta)):
        raise ValueError(f"early_terminate has no band: max_iter {options['max_iter']} / eta {eta} is below 1")
    maximize = sweep["metric"].get("goal") == "maximize"
    return Hyperband(bands, eta, bool(options.get("strict", True)), maximize)
