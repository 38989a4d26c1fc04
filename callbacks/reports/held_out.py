"""What reports of a codec in training share: held-out photographs, a folder, files that decode, a picture for wandb."""

from pathlib import Path

import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from modules.components.coding.checked_file import Codec, file_of
from modules.components.options import at_least


class HeldOutReport(Callback):
    """When training ends, on one process: ``report`` on the first held-out photographs; its picture goes to wandb.

    The module gives what ``needs`` names, the datamodule ``held_out_images()``: uint8 [H, W, 3] by name.

    Args:
        dirpath: folder for the files.
        num_images: held-out photographs to use.

    Raises:
        ValueError: for no photographs; at the start of a fit, for a module or data that lack something.
    """

    needs: tuple[str, ...] = ("codec",)

    def __init__(self, dirpath: str, num_images: int = 4) -> None:
        at_least(1, num_images=num_images)
        self.folder = Path(dirpath)
        self.num_images = num_images

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        missing = [name for name in self.needs if not hasattr(pl_module, name)]
        has_images = hasattr(trainer.datamodule, "held_out_images")  # type: ignore[attr-defined]
        if stage == "fit" and (missing or not has_images):
            wanted = ", ".join(f"{name}()" for name in self.needs)
            raise ValueError(f"{type(self).__name__} needs a module with {wanted} and data with held_out_images()")

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        images = list(trainer.datamodule.held_out_images().items())  # type: ignore[attr-defined]
        picture = self.report(pl_module, dict(images[: self.num_images]))
        print(f"picture     {picture}")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(picture.stem, [str(picture)], trainer.global_step)

    def report(self, pl_module: LightningModule, images: dict[str, np.ndarray]) -> Path:
        """Print and write what there is to say; the path of the picture."""
        raise NotImplementedError

    def write_file(self, codec: Codec, name: str, pixels: np.ndarray) -> Path:
        """The compressed file of a photograph, in the folder; it has been decoded and compared."""
        path = self.folder / f"{Path(name).stem}{codec.extension}"
        path.write_bytes(file_of(codec, pixels))
        return path
