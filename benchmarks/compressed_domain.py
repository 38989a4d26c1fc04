"""What it costs to classify a compressed image: decode it and run ResNet-50, or run cResNet-51 on its code.

    python benchmarks/compressed_domain.py [--quick]

One image of 224x224 at full width, C = 32, untrained weights, float32, one thread, from the symbols of a file on.
Multiply-adds are those of convolutions and linear layers. Seconds are CPU time, the best of the repetitions, in turn.
The two last lines are path (a) over path (b).
"""

import argparse
import time

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from modules.compressed_domain.metrics import to_8_bits
from modules.compressed_domain.nets import CodeResNet, CompressionNet, RGBResNet


class Decoded(nn.Module):
    """Path (a): decoder, 8-bit image, ResNet."""

    def __init__(self, codec: CompressionNet, network: RGBResNet) -> None:
        super().__init__()
        self.codec, self.network = codec, network

    def forward(self, symbols: Tensor) -> Tensor:
        logits: Tensor = self.network(to_8_bits(self.codec.decode(self.codec.quantizer.levels[symbols])))
        return logits


class Direct(nn.Module):
    """Path (b): cResNet on the centre values."""

    def __init__(self, codec: CompressionNet, network: CodeResNet) -> None:
        super().__init__()
        self.levels, self.network = codec.quantizer.levels, network

    def forward(self, symbols: Tensor) -> Tensor:
        logits: Tensor = self.network(self.levels[symbols])
        return logits


def gmac(path: nn.Module, symbols: Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        path(symbols)
    return counter.get_total_flops() / 2e9


def seconds(paths: dict[str, nn.Module], symbols: Tensor, repetitions: int) -> dict[str, float]:
    best = dict.fromkeys(paths, float("inf"))
    for _ in range(repetitions):
        for name, path in paths.items():
            start = time.process_time()
            path(symbols)
            best[name] = min(best[name], time.process_time() - start)
    return best


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    repetitions = 4 if parser.parse_args().quick else 20
    torch.set_num_threads(1)
    torch.manual_seed(0)
    codec = CompressionNet().eval()
    pairs = {"ResNet-50 / cResNet-51": (50, 51), "ResNet-50 / cResNet-39": (50, 39), "ResNet-71 / cResNet-72": (71, 72)}
    symbols = torch.randint(codec.num_centers, (1, codec.channels, 28, 28))
    print(f"one image of 224x224, one thread, best of {repetitions}")
    print(f"{'(a) decoder + ResNet / (b) cResNet':36}{'GMAC (a)':>10}{'GMAC (b)':>10}{'s (a)':>9}{'s (b)':>9}")
    ratios: tuple[float, float] | None = None
    for name, (depth, code_depth) in pairs.items():
        decoded = Decoded(codec, RGBResNet(depth=depth)).eval().to(memory_format=torch.channels_last)
        direct = Direct(codec, CodeResNet(depth=code_depth)).eval().to(memory_format=torch.channels_last)
        cost = [gmac(path, symbols) for path in (decoded, direct)]
        times = list(seconds({"a": decoded, "b": direct}, symbols, repetitions).values())
        print(f"{name:36}{cost[0]:10.2f}{cost[1]:10.2f}{times[0]:9.4f}{times[1]:9.4f}")
        ratios = ratios or (cost[0] / cost[1], times[0] / times[1])
    assert ratios is not None
    print(f"ratio compressed_domain_gmac {ratios[0]:.2f}")
    print(f"ratio compressed_domain_seconds {ratios[1]:.2f}")


if __name__ == "__main__":
    main()
