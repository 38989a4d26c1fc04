"""All starts of the 2x2 search at once against one start after another: the same training, the same starts.

    python benchmarks/strassen_starts.py [--quick]

Both are the paper's steps (SGD with momentum on batches of four pairs, rank 7). One start after another is timed on a
few starts and multiplied; that a start gets the same weights in both is checked. Levenberg-Marquardt is timed alike.
The last line is the ratio for SGD with 500 starts.
"""

import argparse
import time
from collections.abc import Callable

import torch

from modules.strassen.levenberg_marquardt import LevenbergMarquardt
from modules.strassen.starts import BilinearStarts

STARTS, RANK = 500, 7


def one_of(network: BilinearStarts, start: int) -> BilinearStarts:
    single = BilinearStarts(rank=RANK, starts=1)
    for weight, part in zip(single.weights, network.weights, strict=True):
        weight.data.copy_(part.data[start : start + 1])
    return single


def train_by_sgd(network: BilinearStarts, steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(steps):
        left, right = 2 * torch.rand(2, 4, 2, 2, generator=generator, dtype=torch.float64) - 1
        optimizer.zero_grad()
        (0.5 * (network(left, right) - left @ right).square().flatten(1).mean(1)).sum().backward()
        optimizer.step()


def train_by_equations(network: BilinearStarts, steps: int) -> None:
    optimizer = LevenbergMarquardt(network.parameters())
    for _ in range(steps):
        optimizer.step()


def measure(name: str, train: Callable[[BilinearStarts, int], None], steps: int, singles: int) -> float:
    """Print a line and return time alone over time together for all starts."""
    train(BilinearStarts(rank=RANK, starts=2), 2)
    together = BilinearStarts(rank=RANK, starts=STARTS)
    alone = [one_of(together, start) for start in range(singles)]
    start = time.perf_counter()
    train(together, steps)
    batched = time.perf_counter() - start
    start = time.perf_counter()
    for network in alone:
        train(network, steps)
    serial = (time.perf_counter() - start) * STARTS / singles
    for i, network in enumerate(alone):
        torch.testing.assert_close(network.first[0], together.first[i], atol=1e-6, rtol=1e-4)
    print(f"{name:22}{1e3 * batched / steps:14.3f}{1e3 * serial / steps:18.1f}{serial / batched:10.1f}")
    return serial / batched


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps and single starts")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    print(f"{STARTS} starts, one thread; milliseconds a step")
    print(f"{'':22}{'all at once':>14}{'one after another':>18}{'ratio':>10}")
    ratio = measure("SGD, batch 4", train_by_sgd, 60 if quick else 1000, 3 if quick else 10)
    measure("Levenberg-Marquardt", train_by_equations, 8 if quick else 30, 3 if quick else 10)
    print(f"ratio starts_at_once {ratio:.1f}")


if __name__ == "__main__":
    main()
