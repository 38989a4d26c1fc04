"""One training step of full-size L3C: as configured here against the plain way, in turn.

    python benchmarks/l3c_training.py [--quick] [--device cuda]

Ours: channels_last, bfloat16 autocast, the fused likelihood on the CPU. Plain: contiguous float32 and the likelihood
as the paper writes it. Forward, loss, backward, RMSprop step; batch 30 of 128x128 from memory on the device.
"""

import argparse
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from modules.l3c.losses import scale_bits, shift_means, split_parameters
from modules.l3c.nets import MIN_LOG_SCALE, L3CNet, PyramidOutput


def plain_nats(output: PyramidOutput, network: L3CNet) -> Tensor:
    """Code length by the formula of the paper's code: sigmoids of both edges, tails by softplus, everything float32."""
    total = torch.zeros((), device=output.targets[0].device)
    for parameters, x, alphabet in zip(output.parameters, output.targets, network.alphabets, strict=False):
        logits, means, log_scales, *coefficients = split_parameters(parameters, alphabet, network.num_mixtures)
        if alphabet.is_rgb:
            means = shift_means(means, coefficients[0], x)
        value = x.unsqueeze(2)
        inverse = torch.exp(-log_scales.clamp(min=MIN_LOG_SCALE))
        upper = (value - means + alphabet.step / 2) * inverse
        lower = (value - means - alphabet.step / 2) * inverse
        inside = torch.log((torch.sigmoid(upper) - torch.sigmoid(lower)).clamp(min=1e-12))
        first = upper - torch.nn.functional.softplus(upper)
        last = -torch.nn.functional.softplus(lower)
        high = alphabet.low + alphabet.step * (alphabet.num_symbols - 1)
        log_bin = torch.where(value < alphabet.low + 0.001, first, torch.where(value > high - 0.001, last, inside))
        total = total - torch.logsumexp(torch.log_softmax(logits, 2) + log_bin, 2).sum()
    return total


class Step:
    """A network, its optimizer and one way to take a step."""

    def __init__(self, is_ours: bool, device: str) -> None:
        torch.manual_seed(0)
        self.is_ours = is_ours
        self.network = L3CNet().to(device)
        if is_ours:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.RMSprop([p for p in self.network.parameters() if p.requires_grad], 1e-4)

    def __call__(self, image: Tensor) -> None:
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.is_ours):
            output = self.network(image)
        if self.is_ours:
            loss = scale_bits(output, self.network.alphabets, self.network.num_mixtures).sum()
        else:
            loss = plain_nats(output, self.network)
        self.optimizer.zero_grad()
        (loss / image.numel()).backward()
        self.optimizer.step()
        if image.device.type == "cuda":
            torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="batch 4 of 64x64")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    batch, side = (4, 64) if arguments.quick else (30, 128)
    image = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, device=arguments.device)
    steps = {"plain": Step(False, arguments.device), "ours": Step(True, arguments.device)}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step(image[:2])
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step(image)
            times[name].append(time.perf_counter() - start)
    table = Table(
        "", "s per step", "images/s", title=f"training step, batch {batch} of {side}x{side}, {arguments.device}"
    )
    best = {name: min(values) for name, values in times.items()}
    for name, seconds in best.items():
        table.add_row(name, f"{seconds:.3f}", f"{batch / seconds:.1f}")
    Console(width=100).print(table)
    print(f"ratio l3c_training_step {best['plain'] / best['ours']:.2f}")


if __name__ == "__main__":
    main()
