"""Training steps of DPLC: ours against the naive order, in one process.

    python benchmarks/dplc_step.py [--quick]

Naive: float32, contiguous images; the critic phase builds the generator's graph and throws it away; MMD from
differences [N, N, m], a kernel at a time. Ours: bfloat16 and channels_last but for the critic, fakes without a graph,
MMD from one matrix product. Both take the same steps of the same networks; the critic's penalty is float32 in both.
"""

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch
from torch import Tensor

from modules.dplc.adversary import Adversary
from modules.dplc.losses import SCALES, mmd, rmse, scaled
from modules.dplc.nets import CompressionNet, GenerativeNet


def naive_mmd(q: Tensor, z: Tensor) -> Tensor:
    n, m = q.shape
    total = q.new_zeros(())
    off = 1 - torch.eye(n)
    for scale in SCALES:
        c = 2 * m * scale

        def kernel(a: Tensor, b: Tensor, c: float = c) -> Tensor:
            return c / (c + (a[:, None] - b[None]).square().sum(2))

        total = total + ((kernel(z, z) + kernel(q, q)) * off).sum() / (n * (n - 1)) - 2 * kernel(q, z).mean()
    return total


class Steps:
    """One generator step and one critic step of Wasserstein++, and one step of stage 2."""

    def __init__(self, width: int, is_ours: bool) -> None:
        torch.manual_seed(0)
        self.is_ours = is_ours
        self.stage1, self.adversary = GenerativeNet(width), Adversary(width)
        self.code = CompressionNet(8, width)
        if is_ours:
            for network in (self.stage1, self.code):
                network.to(memory_format=torch.channels_last)
        self.mmd = mmd if is_ours else naive_mmd

    def images(self, image: Tensor) -> Tensor:
        return scaled(image) if self.is_ours else image / 127.5 - 1

    def critic(self, x: Tensor) -> None:
        with torch.set_grad_enabled(not self.is_ours):
            fake = self.stage1.generator(self.stage1.encoder(x)).detach()  # type: ignore[misc]
        distance, penalty = self.adversary.critic_terms(x, fake, torch.rand(len(x), 1, 1, 1))
        (10 * penalty - distance).backward()

    def generator(self, x: Tensor) -> None:
        q = self.stage1.encoder(x)  # type: ignore[misc]
        loss = rmse(self.stage1.generator(q), x) + 100 * self.mmd(q.flatten(1), torch.randn(len(x), q.shape[1]))
        (loss + self.adversary.generator_loss(self.stage1.generator(q.detach()))).backward()

    def stage2(self, x: Tensor) -> None:
        coded = self.code(x, self.code.draw_noise(len(x)))
        prior = torch.randn(len(x), coded.z.shape[1])
        (rmse(coded.x_hat, x) + 300 * self.mmd(coded.z.flatten(1), prior)).backward()

    def step(self, kind: str, image: Tensor) -> None:
        for network in (self.stage1, self.adversary, self.code):
            network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.is_ours):
            getattr(self, kind)(self.images(image))


def seconds(work: Callable[[], None], repeats: int) -> float:
    """CPU seconds of the fastest of several calls."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="width 16 and 32 images instead of 64 and 64")
    width, count, repeats = (16, 32, 2) if parser.parse_args().quick else (64, 64, 3)
    torch.set_num_threads(1)
    image = torch.randint(256, (count, 64, 64, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    naive, ours = Steps(width, False), Steps(width, True)
    ratios = {}
    print(f"width {width}, {count} images, one thread, CPU seconds\nstep        naive    ours   ratio")
    for kind in ("critic", "generator", "stage2"):
        slow, fast = (seconds(lambda s=s, kind=kind: s.step(kind, image), repeats) for s in (naive, ours))  # type: ignore[misc]
        ratios[kind] = slow / fast
        print(f"{kind:10s} {slow:6.3f}  {fast:6.3f}  {ratios[kind]:6.2f}", flush=True)
    print(f"ratio dplc_step {(ratios['generator'] * ratios['stage2']) ** 0.5:.2f}")


if __name__ == "__main__":
    main()
