"""Which of a command's files this process takes, where a launcher has started the command several times."""

import os
import re
from typing import NamedTuple

LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))
"""Variables of torchrun and of srun: this process, counted from 0, and how many there are. A batch script that srun
has not started has the first of SLURM's, but not the second, and takes all files."""


class Part(NamedTuple):
    """Every ``total``-th file, beginning with file ``number``, which is counted from 0."""

    number: int = 0
    total: int = 1

    def takes(self, position: int) -> bool:
        return position % self.total == self.number

    def __str__(self) -> str:
        return f"part {self.number + 1} of {self.total}"


WHOLE = Part()


def chosen_part(text: str | None) -> Part:
    """The part that ``text`` names, such as 2/8, or else the one of a launcher; without one all files.

    Raises:
        ValueError: for a text or variables that say nothing of the kind.
    """
    if text is not None:
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"--part is K/N with K from 1 to N, such as 2/8, not {text}")
        return Part(int(found[1]) - 1, int(found[2]))
    for rank, world_size in LAUNCHERS:
        if rank in os.environ and world_size in os.environ:
            values = os.environ[rank], os.environ[world_size]
            if not all(value.isdecimal() for value in values) or not int(values[0]) < int(values[1]):
                raise ValueError(f"{rank}={values[0]} and {world_size}={values[1]} say no part of a whole: set --part")
            return Part(int(values[0]), int(values[1]))
    return WHOLE
