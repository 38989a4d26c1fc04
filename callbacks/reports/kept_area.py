"""What selective compression gives for the area that it keeps: rate, and error inside and outside, of real files."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from modules.components.coding.container import pack, unpack
from modules.components.options import at_least

DIGITS = (4, 1, 4, 1, 1, 1, 1, 1)
"""Behind the point, of the numbers of a row."""


class Row(NamedTuple):
    """Means over scenes; of the errors over those scenes that have pixels there."""

    kept: str
    """What was asked for, as for codec.py."""
    area: float
    """Share of the pixels that is kept."""
    file_bytes: float
    bpp: float
    symbol_bytes: float
    """What the file has more than one of the same scene that keeps nothing: symbols, and which are kept."""
    bound_bytes: float
    """C log2(5) bits for each kept cell."""
    mse_inside: float
    """Squared error of 8-bit values, over kept pixels."""
    mse_outside: float
    mse_inside_if_not_kept: float
    """Over the same pixels where nothing is kept: what keeping them has changed."""


class Without(NamedTuple):
    """A file of a scene that keeps nothing, and what it decodes to."""

    num_bytes: int
    pixels: np.ndarray


class KeptArea(Callback):
    """After ``test``: ``kept_area.csv``, and the same as a table.

    The module gives ``codec()`` and ``side_information(scene, keep, box)``; the datamodule ``held_out_scenes(count)``.
    A file of each scene and choice is written, read back and decoded.

    Args:
        dirpath: folder for the table.
        num_images: held-out scenes.
        keep: choices of labels, such as "person,car"; "" for nothing, null for everything.
        boxes: choices of boxes, as shares of the image: left, top, width, height.
    """

    def __init__(
        self,
        dirpath: str,
        num_images: int = 5,
        keep: list[str | None] | None = None,
        boxes: list[tuple[float, float, float, float]] | None = None,
    ) -> None:
        self.folder, self.num_images = Path(dirpath), num_images
        self.keep = ["", "person,car", None] if keep is None else keep
        self.boxes = boxes or []
        wrong = [box for box in self.boxes if min(box) < 0 or box[0] + box[2] > 1 or box[1] + box[3] > 1]
        at_least(1, num_images=num_images)
        if wrong or not (self.keep or self.boxes):
            raise ValueError(f"need a choice and boxes within 0..1, got {self.keep}, {self.boxes}")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        missing = [name for name in ("codec", "side_information") if not hasattr(pl_module, name)]
        if missing or not hasattr(trainer.datamodule, "held_out_scenes"):  # type: ignore[attr-defined]
            raise ValueError("KeptArea needs a module with codec() and side_information(), and held_out_scenes()")

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        codec, found = pl_module.codec(), dict[str, list[list[float]]]()  # type: ignore[operator]
        for scene in trainer.datamodule.held_out_scenes(self.num_images):  # type: ignore[attr-defined]
            nothing = codec.compress(scene["image"], None, pl_module.side_information(scene, ""))  # type: ignore[operator]
            without = Without(len(pack(nothing)), codec.decompress(nothing))
            for name, wish in self._choices(scene["image"].shape):
                side = pl_module.side_information(scene, **wish)  # type: ignore[operator]
                found.setdefault(name, []).append(measure(codec, scene["image"], side, without))
        rows = [Row(name, *np.ma.masked_invalid(values).mean(0).filled(np.nan)) for name, values in found.items()]
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "kept_area.csv"
        write_rows(rows, path)
        print(f"kept area   {path}")

    def _choices(self, shape: tuple[int, ...]) -> list[tuple[str, dict[str, Any]]]:
        named = {"": "nothing", None: "everything"}
        choices: list[tuple[str, dict[str, Any]]] = [(named.get(keep, str(keep)), {"keep": keep}) for keep in self.keep]
        height, width = shape[:2]
        for box in self.boxes:
            left, top, wide, high = (round(share * side) for share, side in zip(box, (width, height) * 2, strict=True))
            name = "box " + " ".join(f"{share:g}" for share in box)
            choices.append((name, {"keep": None, "box": f"{left},{top},{max(wide, 1)},{max(high, 1)}"}))
        return choices


def measure(codec: Any, image: np.ndarray, side: Any, without: Without) -> list[float]:
    """The numbers of a ``Row``, of one scene uint8 [H, W, 3]; NaN for the error of no pixels."""
    file = pack(codec.compress(image, None, side))
    container = unpack(file)
    code, stride = codec.read(container), codec.network.stride
    kept = code.keep.repeat(stride, 0).repeat(stride, 1)[: image.shape[0], : image.shape[1]]
    squares, other = (
        (x_hat.astype(np.float64) - image) ** 2 for x_hat in (codec.decompress(container), without.pixels)
    )
    bound = code.keep.sum() * len(code.symbols) * np.log2(5) / 8
    sizes = [len(file), 8 * len(file) / kept.size, len(file) - without.num_bytes, float(bound)]
    return [float(kept.mean()), *sizes, *(_mean(*pair) for pair in ((squares, kept), (squares, ~kept), (other, kept)))]


def _mean(values: np.ndarray, where: np.ndarray) -> float:
    return float(values[where].mean()) if where.any() else float("nan")


def write_rows(rows: list[Row], path: Path) -> None:
    """As CSV, and as a table on the console; what there is not stays empty."""
    words = [
        [
            row.kept,
            *("" if np.isnan(value) else f"{value:.{digits}f}" for value, digits in zip(row[1:], DIGITS, strict=True)),
        ]
        for row in rows
    ]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([Row._fields, *words])
    table = Table(*Row._fields, title="selective compression")
    for row in words:
        table.add_row(*row)
    Console(soft_wrap=True).print(table)


def _word(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"
