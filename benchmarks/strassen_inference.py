"""Ternary matrix times vector on packed words against torch at batch 1: float32, bf16 and int8 on the same layer.

    python benchmarks/strassen_inference.py [--quick]

int8 is torch._int_mm on quantised weights and activations, with 17 rows because it takes no fewer; its time is that of
all 17. Each time is the best of the repetitions. The last line is float32 over packed for the layer of VGG-7.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from modules.strassen.kernels import PackedMatrix

LAYERS = {
    "VGG-7 dense 8192 -> 1024": (1024, 8192),
    "LM highway 1100 -> 1100": (1100, 1100),
    "4096 -> 4096": (4096, 4096),
}


BLOCK = 50
"""Calls of one kind in a row, before another kind has its turn: matrix units slow the core down for a while."""


def best_times(calls: dict[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Milliseconds; each call finds other data in the caches of its core."""
    best, others = dict.fromkeys(calls, float("inf")), torch.zeros(1 << 20)
    for _ in range(-(-repetitions // BLOCK)):
        for name, call in calls.items():
            for _ in range(BLOCK):
                others.sum()
                start = time.perf_counter()
                call()
                best[name] = min(best[name], 1e3 * (time.perf_counter() - start))
    return best


def measure(rows: int, columns: int, repetitions: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randint(-1, 2, (rows, columns), generator=generator, dtype=torch.int8)
    x = torch.randn(columns, generator=generator)
    real, vector, packed = matrix.float(), x.numpy(), PackedMatrix(matrix)
    half, half_x = real.bfloat16(), x.bfloat16()
    whole_x = (x / x.abs().max() * 127).round().to(torch.int8).expand(17, -1).contiguous()
    error = np.abs(packed.times(vector) - (real.double() @ x.double()).numpy()).max()
    assert error < 1e-3, f"the packed product is off by {error}"
    calls: dict[str, Callable[[], object]] = {
        "float32": lambda: real @ x,
        "bf16": lambda: half @ half_x,
        "int8": lambda: torch._int_mm(whole_x, matrix.T),
        "packed": lambda: packed.times(vector),
    }
    return best_times(calls, repetitions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    repetitions = 20 if parser.parse_args().quick else 300
    torch.set_num_threads(1)
    print(f"one thread; milliseconds, best of {repetitions}")
    print(f"{'layer':28}{'float32':>10}{'bf16':>10}{'int8':>10}{'packed':>10}")
    ratio = 0.0
    for name, (rows, columns) in LAYERS.items():
        times = measure(rows, columns, repetitions)
        print(f"{name:28}" + "".join(f"{value:10.3f}" for value in times.values()))
        ratio = ratio or times["float32"] / times["packed"]
    print(f"ratio ternary_matvec_over_float32 {ratio:.2f}")


if __name__ == "__main__":
    main()
