"""What a born-again step costs: over a plain step, against the naive way, and in Lightning against a bare loop.

    python benchmarks/ban_step.py [--quick] [--device cuda]

A Wide-ResNet (28-2, with --quick 16-1) on batches of 128 CIFAR-sized uint8 images that are in memory. Plain: labels
only. Ours: the teacher asked without autograd, channels_last, bfloat16. Naive: teacher called like the student,
contiguous, float32. Bare: our step, written as a loop; Lightning: the same step by the LightningModule and Trainer,
with the metrics it logs. All ways take turns; seconds are CPU-seconds of this process, by the clock on an accelerator.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from pytorch_lightning import Callback, Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from modules.born_again.losses import ban, labels_only
from modules.born_again.module import BornAgainClassifier
from modules.born_again.resnet import WideResNet
from modules.components.frozen import Frozen

Batch = dict[str, Tensor]


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


class Loop:
    """A bare training loop over the parts of a ``BornAgainClassifier``."""

    def __init__(self, size: tuple[int, int], device: torch.device, naive: bool = False, taught: bool = True) -> None:
        torch.manual_seed(0)
        depth, width = size
        self.module = BornAgainClassifier(partial(WideResNet, depth=depth, width=width)).to(device)
        if naive:
            self.module.student.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.teacher = Frozen(self.module.student)
        self.naive, self.taught, self.device = naive, taught, device
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=0.1, momentum=0.9, nesterov=True)

    def step(self, batch: Batch) -> None:
        x = self.module.normalized(batch["image"])
        if self.naive:
            x = x.contiguous()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=not self.naive):
            logits = self.module.student(x)
            if not self.taught:
                loss = labels_only(logits, batch["label"])
            elif self.naive:
                loss = ban(logits, self.teacher.network.requires_grad_(True)(x), batch["label"])
            else:
                loss = ban(logits, self.teacher(x), batch["label"])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def __call__(self, batches: list[Batch]) -> float:
        """Seconds a step, after a first one."""
        self.step(batches[0])
        start = now(self.device)
        for batch in batches:
            self.step(batch)
        return (now(self.device) - start) / len(batches)


class StepClock(Callback):
    """Seconds from the end of the first batch to the end of the last."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: list[float] = []

    def on_train_batch_end(self, *args: object) -> None:
        self.times.append(now(self.device))

    def seconds(self) -> float:
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)


def in_lightning(size: tuple[int, int], device: torch.device) -> Callable[[list[Batch]], float]:
    torch.manual_seed(0)
    module = BornAgainClassifier(
        partial(WideResNet, depth=size[0], width=size[1]),
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    )
    module.teacher = Frozen(module.student)

    def run(batches: list[Batch]) -> float:
        clock = StepClock(device)
        trainer = Trainer(
            max_epochs=1,
            accelerator=device.type if device.type == "cpu" else "gpu",
            devices=1,
            precision="bf16-mixed",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            callbacks=[clock],
        )
        trainer.fit(module, DataLoader([batches[0], *batches], batch_size=None))  # type: ignore[arg-type]
        return clock.seconds()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)  # waiting threads would count as CPU time
    size, steps, rounds = ((16, 1), 5, 3) if options.quick else ((28, 2), 8 if device.type == "cpu" else 100, 3)
    batches = [
        {
            "image": torch.randint(256, (128, 3, 32, 32), dtype=torch.uint8, device=device),
            "label": torch.randint(10, (128,), device=device),
        }
        for _ in range(steps)
    ]
    ways: dict[str, Callable[[list[Batch]], float]] = {
        "plain": Loop(size, device, taught=False),
        "taught, naive": Loop(size, device, naive=True),
        "taught, bare loop": Loop(size, device),
        "taught, Lightning": in_lightning(size, device),
    }
    runs = [{name: way(batches) for name, way in ways.items()} for _ in range(rounds)]
    table = Table("way", "ms a step", "over plain")
    for name in ways:
        share = median(run[name] / run["plain"] for run in runs)
        table.add_row(name, f"{1000 * median(run[name] for run in runs):.1f}", f"{share:.2f}")
    console = Console()
    console.print(f"Wide-ResNet-{size[0]}-{size[1]}, batch 128, {device}, one thread")
    console.print(table)
    overhead = median(run["taught, Lightning"] / run["taught, bare loop"] for run in runs) - 1
    console.print(f"Lightning over the bare loop: {100 * overhead:+.1f} %")
    ratio = median(run["taught, naive"] / run["taught, Lightning"] for run in runs)
    print(f"ratio ban_step {ratio:.2f}")


if __name__ == "__main__":
    main()
