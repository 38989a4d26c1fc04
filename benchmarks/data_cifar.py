"""Training images per second, cropped and mirrored: the in-memory batched pipeline against torchvision's, in turn.

    PARSIMONY_DATA=... python benchmarks/data_cifar.py [--quick] [--device cuda] [--workers 2]

Ours: the images in memory on the device, a batch padded, cropped and mirrored at once. Per image, in loader workers:
torchvision's RandomCrop(32, padding=4, padding_mode="reflect"), RandomHorizontalFlip, ToTensor and Normalize on PIL
images, as its CIFAR10 hands them out, and the transfer to the device. Both make shuffled batches of 128, once as
uint8 and once as normalised float32, which the ratio compares. On the CPU both are judged by CPU-seconds of all their
processes, which other work on the machine does not change; on an accelerator by the clock. Without cifar10_jpeg,
random images of the same size and number are used.
"""

import argparse
import os
import resource
import time
from collections.abc import Callable, Iterable
from statistics import median

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as train.py does; read by torch

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from datamodules.cifar import CIFAR10Folder
from datamodules.images.in_memory import PADDING, ImagesInMemory
from datamodules.loading.loaders import as_it_is, training_loader

BATCH = 128
MEAN, STD = CIFAR10Folder.mean, CIFAR10Folder.std


class PerImage(Dataset):
    """Images as PIL images through ``transform``, one at a time."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Callable) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def per_image(
    images: np.ndarray, labels: np.ndarray, normalised: bool, workers: int, device: torch.device
) -> Iterable[Tensor]:
    steps: list[Callable] = [transforms.RandomCrop(32, padding=PADDING, padding_mode="reflect")]
    steps += [transforms.RandomHorizontalFlip()]
    steps += [transforms.ToTensor(), transforms.Normalize(MEAN, STD)] if normalised else [transforms.PILToTensor()]
    dataset = PerImage(images, labels, transforms.Compose(steps))
    pin = device.type == "cuda"
    for image, label in DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, drop_last=True, pin_memory=pin):
        label.to(device, non_blocking=True)
        yield image.to(device, non_blocking=True)


def ours(dataset: ImagesInMemory, normalised: bool) -> Iterable[Tensor]:
    mean, std = (torch.tensor(value, device=dataset.images.device).mul(255).view(3, 1, 1) for value in (MEAN, STD))
    for batch in training_loader(dataset, BATCH, 0, 0, None, pin_memory=False, collate_fn=as_it_is):
        yield batch["image"].float().sub_(mean).div_(std) if normalised else batch["image"]


def cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(batches: Callable[[], Iterable[Tensor]], device: torch.device) -> tuple[float, float]:
    """Images per CPU-second and per second of the clock."""
    start, cpu = time.perf_counter(), cpu_seconds()
    count = sum(len(batch) for batch in batches())
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return count / (cpu_seconds() - cpu), count / (time.perf_counter() - start)


def training_images(count: int) -> tuple[str, np.ndarray, np.ndarray]:
    """Where they are from, uint8 [count, 32, 32, 3], and labels int64 [count]."""
    data = CIFAR10Folder()
    if data.folder.is_dir():
        images, labels = data.read("train")
        chosen = np.random.default_rng(0).permutation(len(images))[:count]
        return str(data.folder), images[chosen], labels[chosen]
    rng = np.random.default_rng(0)
    return "made-up images", rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, 10, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=2, help="of the per-image way")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)  # waiting threads would count as CPU time
    rounds, theirs_count = (3, 6_000) if options.quick else (5, 50_000)
    source, images, labels = training_images(50_000)
    print(f"{len(images)} of {source} (per image: {theirs_count}), {device}, {rounds} rounds")
    dataset = ImagesInMemory(torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device), PADDING)
    ways = {
        (name, kind): way
        for kind, normalised in (("uint8", False), ("normalised float32", True))
        for name, way in (
            (
                f"per image, {options.workers} workers",
                lambda normalised=normalised: per_image(
                    images[:theirs_count], labels[:theirs_count], normalised, options.workers, device
                ),
            ),
            ("ours", lambda normalised=normalised: ours(dataset, normalised)),
        )
    }
    for way in ways.values():
        measure(way, device)  # warm up
    runs = [{key: measure(way, device) for key, way in ways.items()} for _ in range(rounds)]
    table = Table("way", "batches", "images per CPU-second", "images per second")
    for key in ways:
        table.add_row(*key, *(f"{median(run[key][i] for run in runs):,.0f}" for i in (0, 1)))
    Console().print(table)
    judge = 1 if device.type == "cuda" else 0
    peer, own = list(ways)[2:]
    print(f"ratio data_cifar {median(run[own][judge] / run[peer][judge] for run in runs):.2f}")


if __name__ == "__main__":
    main()
