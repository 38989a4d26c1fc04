"""Weights for sharing: ``python -m modules.ecg.export RUN_FOLDER... --output FOLDER``.

Each RUN_FOLDER is a finished fit, such as runs/ecg/joint_crnn/000. The network of its best checkpoint becomes
``FOLDER/fold<k>.pt``: what builds it, its views and its state in half precision, which
``python -m modules.ecg.predict`` reads like a checkpoint. What exists is overwritten only with --force.
"""

import argparse
import sys
from pathlib import Path

import torch

from modules.components.checkpoint_file import read_checkpoint
from modules.components.files.whole_files import unfinished
from modules.ecg.cross_validate import fold_of
from modules.ecg.inference import load_classifier

SETTINGS = ("network", "truncate_spectrogram", "views")
"""Of a module's hyper-parameters: those that predictions follow."""


def export(checkpoint: Path, target: Path) -> None:
    """Write the classifier of a checkpoint in half precision; a file that could not be read again is not left.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if it holds no classifier, or one that half precision cannot hold.
    """
    load_classifier(checkpoint)
    content = read_checkpoint(checkpoint)
    settings = {name: content["hyper_parameters"][name] for name in SETTINGS if name in content["hyper_parameters"]}
    state = {name: t.half() if t.is_floating_point() else t for name, t in content["state_dict"].items()}
    with unfinished(target) as temporary:
        torch.save({"hyper_parameters": settings, "state_dict": state}, temporary)
        load_classifier(temporary)


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m modules.ecg.export", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, one per fold")
    parser.add_argument("--output", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--force", action="store_true", help="overwrite existing weights")
    options = parser.parse_args(args)
    try:
        targets = [options.output / f"fold{fold_of(run)}.pt" for run in options.runs]
        if len(set(targets)) < len(targets):
            raise ValueError("two runs have the same test fold: give one run per fold")
        if there := [target for target in targets if target.exists() and not options.force]:
            raise FileExistsError(f"{there[0]} exists; --force overwrites it")
        for run, target in zip(options.runs, targets, strict=True):
            export(run / "checkpoints" / "best.ckpt", target)
            print(f"{target}: {target.stat().st_size:,} bytes")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
