"""Write a trained network in its additions-only form: ``python -m modules.strassen.export CHECKPOINT FILE``.

CHECKPOINT is one of a ternary stage, such as phase2.ckpt of a run. Prints the bytes of the file beside those of the
parameters in training. The exit code is 2 for a checkpoint that cannot be exported.
"""

import argparse
import sys
from pathlib import Path

from modules.strassen.conversion import SPNNetwork
from modules.strassen.packed_file import save_packed, trained_network


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write a trained network in its additions-only form.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("file", type=Path, help="to be written, usually *.pstn")
    parser.add_argument("--base", type=int, choices=(2, 3), default=3, help="3: 1.6 bits a ternary weight, 2: 2 bits")
    given = parser.parse_args(arguments)
    try:
        if given.file.exists() and given.checkpoint.exists() and given.file.samefile(given.checkpoint):
            raise ValueError(f"{given.file} is the checkpoint itself: name another file to be written")
        network, config = trained_network(given.checkpoint)
        if not isinstance(network, SPNNetwork):
            raise ValueError(f"{given.checkpoint} holds a {type(network).__name__}, which has no SPN layers")
        size = save_packed(given.file, network, config, given.base)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    real = sum(4 * parameter.numel() for parameter in network.parameters())
    print(f"{given.file}: {size:,} bytes; the parameters in training took {real:,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
