"""What a lossy codec of street scenes makes of them: real files, beside Pillow's codecs of the same size."""

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from callbacks.reports.equal_bits import at_most, peers
from modules.components.coding.container import pack, unpack
from modules.components.coding.model_file import load_network
from modules.components.options import at_least


class Shown(NamedTuple):
    title: str
    pixels: np.ndarray
    """uint8 [H, W, 3]."""


def psnr_db(x_hat: np.ndarray, x: np.ndarray) -> float:
    """Of 8-bit pixels; infinite for equal ones."""
    mse = np.mean((x_hat.astype(np.float64) - x) ** 2)
    return float(10 * np.log10(255**2 / mse)) if mse else float("inf")


def mse_of(x_hat: np.ndarray, x: np.ndarray, where: np.ndarray) -> float:
    """Mean squared error of 8-bit pixels [H, W, 3] over bool [H, W]; not a number where there is none."""
    return float(np.mean((x_hat.astype(np.float64) - x)[where] ** 2)) if where.any() else float("nan")


def label_colours(mask: np.ndarray) -> np.ndarray:
    """A colour for each label id, uint8 [H, W, 3]; 255 is black."""
    palette = np.random.default_rng(3).integers(40, 256, (256, 3), dtype=np.uint8)
    palette[255] = 0
    return palette[mask]


class ScenePictures(Callback):
    """When training ends, and after ``test``: a table of file sizes and errors, a picture, the files themselves.

    The module gives ``codec()`` and ``side_information(scene, keep)`` (None where the codec takes none); the
    datamodule gives ``held_out_scenes(count)``. A file of each scene is written, read back and decoded. Beside each
    stands what JPEG 2000, WebP and AVIF make of the same number of bytes, or of the fewest they can.

    Args:
        dirpath: folder for the files and ``scenes.png``.
        num_images: held-out scenes.
        keep: what selective compression keeps, one file each: null for everything, or labels such as person,car.
        baselines: names and checkpoints of other networks to show beside, of methods that need no labels.
    """

    def __init__(
        self,
        dirpath: str,
        num_images: int = 3,
        keep: list[str | None] | None = None,
        baselines: dict[str, str] | None = None,
    ) -> None:
        self.folder = Path(dirpath)
        at_least(1, num_images=num_images)
        self.num_images = num_images
        self.keep = keep or [None]
        self.baselines = baselines or {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        missing = [name for name in ("codec", "side_information") if not hasattr(pl_module, name)]
        if missing or not hasattr(trainer.datamodule, "held_out_scenes"):  # type: ignore[attr-defined]
            raise ValueError("ScenePictures needs a module with codec() and side_information(), and held_out_scenes()")
        for path in self.baselines.values():
            if not Path(path).is_file():
                raise FileNotFoundError(f"no baseline checkpoint {path}")

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer, pl_module)

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer, pl_module)

    def _report(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        codec = pl_module.codec()  # type: ignore[operator]
        others = {name: codec_of(Path(path), str(pl_module.device)) for name, path in self.baselines.items()}
        table = Table("scene", "file", "bytes", "bpp", "PSNR dB", "MSE kept", "MSE rest", "kept", title="real files")
        rows = []
        for scene in trainer.datamodule.held_out_scenes(self.num_images):  # type: ignore[attr-defined]
            shown = [Shown("image", scene["image"])]
            for index, keep in enumerate(self.keep):
                side = pl_module.side_information(scene, keep)  # type: ignore[operator]
                coded = self._coded(codec, scene, side, index)
                title = "ours" if side is None else f"keeps {keep if keep else 'all' if keep is None else 'nothing'}"
                _add_row(table, scene, title, *coded)
                shown.append(Shown(f"{title}, {coded[1]} bytes", coded[0]))
                if side is not None:
                    shown.append(Shown("labels, what is kept bright", masked(label_colours(scene["mask"]), coded[2])))
                if index == 0:
                    budget = coded[1]
            for name, other in others.items():
                coded = self._coded(other, scene, None, name)
                _add_row(table, scene, name, *coded)
                shown.append(Shown(f"{name}, {coded[1]} bytes", coded[0]))
            for name in peers():
                pixels, num_bytes = at_most(scene["image"], name, budget)
                _add_row(table, scene, name, pixels, num_bytes, None)
                shown.append(Shown(f"{name}, {num_bytes} bytes", pixels))
            rows.append(shown)
        Console(soft_wrap=True).print(table)
        picture = draw_rows(rows, self.folder / "scenes.png")
        print(f"pictures    {picture}")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("scenes", [str(picture)])

    def _coded(
        self, codec: Any, scene: dict[str, Any], side: Any, tag: object
    ) -> tuple[np.ndarray, int, np.ndarray | None]:
        """Decoded pixels, bytes, and the pixels kept, bool [H, W], of a file that has been read back."""
        path = self.folder / f"{scene['name']}-{tag}{codec.extension}"
        container = codec.compress(scene["image"]) if side is None else codec.compress(scene["image"], None, side)
        path.write_bytes(pack(container))
        read = unpack(path.read_bytes())
        keep = None
        if side is not None:
            cells = codec.read(read).keep
            stride = codec.network.stride
            height, width = scene["mask"].shape
            keep = cells.repeat(stride, 0).repeat(stride, 1)[:height, :width]
        return codec.decompress(read), path.stat().st_size, keep


def codec_of(path: Path, device: str) -> Any:
    """The codec of a checkpoint, as codec.py would load it."""
    method, network = load_network(path)
    return importlib.import_module(f"modules.{method}.codec").Codec(network, device=device)


def masked(pixels: np.ndarray, keep: np.ndarray | None) -> np.ndarray:
    """Pixels, a third as bright where they are not kept."""
    return pixels if keep is None else np.where(keep[..., None], pixels, pixels // 3)


def _add_row(
    table: Table, scene: dict[str, Any], title: str, pixels: np.ndarray, num_bytes: int, keep: np.ndarray | None
) -> None:
    x = scene["image"]
    errors = ["", "", ""]
    if keep is not None:
        errors = [f"{mse_of(pixels, x, where):.1f}" for where in (keep, ~keep)] + [f"{100 * keep.mean():.1f} %"]
    bpp = 8 * num_bytes / keep.size if keep is not None else 8 * num_bytes / (x.size // 3)
    table.add_row(scene["name"], title, str(num_bytes), f"{bpp:.4f}", f"{psnr_db(pixels, x):.2f}", *errors)


def draw_rows(rows: list[list[Shown]], path: Path) -> Path:
    """A row of pictures for each scene, each under its title."""
    import matplotlib.pyplot as plt

    height, width = rows[0][0].pixels.shape[:2]
    size = (4.0 * len(rows[0]), len(rows) * (4.0 * height / width + 0.3))
    figure, axes = plt.subplots(len(rows), len(rows[0]), figsize=size, squeeze=False, layout="constrained")
    for line, shown in zip(axes, rows, strict=True):
        for axis, (title, pixels) in zip(line, shown, strict=True):
            axis.imshow(pixels)
            axis.set_title(title, fontsize=9)
            axis.axis("off")
    figure.savefig(path, dpi=80)
    plt.close(figure)
    return path
