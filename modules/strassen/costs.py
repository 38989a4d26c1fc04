"""Multiplications, additions and bits of a network, layer by layer: ``python -m modules.strassen.costs NETWORK``.

NETWORK is a class of modules/strassen/nets.py or a checkpoint of a run::

    python -m modules.strassen.costs SPNResNet18 --size 224 ratio=6 patch=2
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modules.strassen.counting import Cost, count, total
from modules.strassen.packed_file import PREFIX, build_empty, trained_network

MAX_TENSORS = 1000


def number(text: str) -> Any:
    """An argument's value: a whole number, a real one, or the text itself."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def network_of(name: str, options: list[str]) -> nn.Module:
    """On the device ``meta``, where it has sizes and no numbers.

    Raises:
        ValueError: for an unknown one, or options that are wrong, given twice, or given for a checkpoint.
        FileNotFoundError: for a name that looks like a file's and is none.
    """
    if Path(name).is_file() or Path(name).suffix:
        if options:
            raise ValueError(f"{name} holds its own arguments: {' '.join(options)} would change nothing")
        return trained_network(Path(name))[0].to("meta")
    pairs = [option.partition("=") for option in options]
    keys = [key for key, _, _ in pairs]
    if wrong := [key for key, sign, value in pairs if not (key and sign and value) or keys.count(key) > 1]:
        raise ValueError(f"options are name=value, each name once, got {wrong[0]!r} among {' '.join(options)}")
    arguments = {key: number(value) for key, _, value in pairs}
    return build_empty({"class_path": PREFIX + name, "init_args": arguments}, MAX_TENSORS)


def costs_of(network: nn.Module, size: int) -> list[Cost]:
    """Raises a ValueError for a network that does not take images of this size."""
    try:
        return count(network, torch.zeros(1, 3, size, size, device="meta"))
    except RuntimeError as error:
        raise ValueError(f"the network does not take images of side {size}: give another --size") from error


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Multiplications, additions and bits of a network, layer by layer.")
    parser.add_argument("network", help="a class of modules/strassen/nets.py or a checkpoint")
    parser.add_argument("options", nargs="*", help="arguments of the class, such as ratio=6 patch=2")
    parser.add_argument("--size", type=int, default=32, help="side of the images")
    given = parser.parse_intermixed_args(arguments)
    try:
        if given.size < 1:
            raise ValueError(f"--size must be at least 1, got {given.size}")
        costs = costs_of(network_of(given.network, given.options), given.size)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{'layer':36}{'kind':14}{'multiplications':>18}{'additions':>18}{'bits':>16}")
    for cost in [*costs, total(costs)]:
        numbers = f"{float(cost.multiplications):18,.0f}{float(cost.additions):18,.0f}{cost.bits:16,}"
        print(f"{cost.layer:36}{cost.kind:14}{numbers}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
