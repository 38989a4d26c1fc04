"""What a step of generator and discriminator costs: ours against the naive order.

    python benchmarks/adversarial_step.py [--quick] [--device cuda]

GC with feature matching, batch 1, images in memory. Ours: x_hat is made once and detached for the discriminator, which
judges x once and has no gradients in the generator's phase; channels_last, bfloat16, losses in float32. Naive: the
generator runs a second time for the discriminator, whose weights get gradients in both phases; contiguous, float32.
Both take turns; seconds are CPU-seconds of this process, by the clock on an accelerator, where the full-size networks
run at 512x1024 (also compiled), with images/s and the share of --peak (TFLOP/s of bfloat16).
"""

import argparse
import time
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from modules.extreme_gan.losses import adversarial_loss, discriminator_loss, distortion, feature_matching_loss
from modules.extreme_gan.nets import GCNet, MultiscaleDiscriminator


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


class Step:
    """Both phases for a batch."""

    def __init__(self, sizes: tuple[int, int, int], device: torch.device, naive: bool, compiled: bool = False) -> None:
        torch.manual_seed(0)
        width, blocks, judge = sizes
        layout = torch.contiguous_format if naive else torch.channels_last
        self.network = GCNet(4, width, blocks).to(device, memory_format=layout)  # type: ignore[call-overload]
        self.judge = MultiscaleDiscriminator(0, 3, judge).to(device, memory_format=layout)  # type: ignore[call-overload]
        self.layout, self.device, self.naive = layout, device, naive
        options = {"lr": 2e-4, "betas": (0.5, 0.999)} | ({} if naive else {"fused": True})
        self.optimizers = [torch.optim.Adam(part.parameters(), **options) for part in (self.network, self.judge)]
        if compiled:
            self.network.generator.compile()
            self.judge.compile()

    def __call__(self, image: Tensor) -> None:
        x = (image.float() / 127.5 - 1).contiguous(memory_format=self.layout)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=not self.naive):
            real = self.judge(x)
            self.judge.requires_grad_(self.naive)
            x_hat = self.network(x).image
            fake = self.judge(x_hat)
            loss = adversarial_loss(fake) + 10 * feature_matching_loss(real, fake) + 10 * distortion(x_hat, x)
        self._update(0, loss)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=not self.naive):
            self.judge.requires_grad_(True)
            if self.naive:
                x_hat, real = self.network(x).image, self.judge(x)
            loss = discriminator_loss(real, self.judge(x_hat.detach()))
        self._update(1, loss)

    def _update(self, index: int, loss: Tensor) -> None:
        for optimizer in self.optimizers[index:]:
            optimizer.zero_grad()
        loss.backward()
        self.optimizers[index].step()

    def seconds(self, images: list[Tensor]) -> float:
        self(images[0])
        start = now(self.device)
        for image in images:
            self(image)
        return (now(self.device) - start) / len(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peak", type=float, default=790.0, help="TFLOP/s of the accelerator (default: %(default)s)")
    options = parser.parse_args()
    device = torch.device(options.device)
    on_cpu = device.type == "cpu"
    torch.set_num_threads(1)  # waiting threads would count as CPU time
    sizes, shape = ((16, 4, 32), (128, 256) if options.quick else (256, 512)) if on_cpu else ((60, 9, 64), (512, 1024))
    count, rounds = (2, 3) if on_cpu else (20, 3)
    images = [torch.randint(256, (1, 3, *shape), dtype=torch.uint8, device=device) for _ in range(count)]
    ways = {"naive": Step(sizes, device, naive=True), "ours": Step(sizes, device, naive=False)}
    if not on_cpu:
        ways["ours, compiled"] = Step(sizes, device, naive=False, compiled=True)
    runs = [{name: way.seconds(images) for name, way in ways.items()} for _ in range(rounds)]
    with FlopCounterMode(display=False) as counter:
        Step(sizes, device, naive=False)(images[0])
    flops = counter.get_total_flops()
    table = Table("way", "ms a step", "images/s", "TFLOP/s", "share of peak")
    for name in ways:
        seconds = median(run[name] for run in runs)
        rate = flops / seconds / 1e12
        share = "" if on_cpu else f"{100 * rate / options.peak:.1f} %"
        table.add_row(name, f"{1000 * seconds:.0f}", f"{1 / seconds:.2f}", f"{rate:.3f}", share)
    console = Console()
    console.print(f"GC, width {sizes[0]}, {sizes[1]} blocks, {shape[0]}x{shape[1]}, batch 1, {device}")
    console.print(table)
    print(f"ratio adversarial_step {median(run['naive'] / run['ours'] for run in runs):.2f}")


if __name__ == "__main__":
    main()
