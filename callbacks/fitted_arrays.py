"""The arrays that a fit found, as a file in the run's folder: endmembers, factors."""

from pathlib import Path

import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.predictions import is_writer


class FittedArrays(Callback):
    """Write what the module's ``fitted_arrays()`` gives at the end of fit: tensors by name, or None.

    Args:
        file: name ending in .npy, for one array, or in .npz, for any number of them by name.

    Raises:
        ValueError: for another ending, and for several arrays that are to go into a .npy file.
    """

    def __init__(self, file: str) -> None:
        if not file.endswith((".npy", ".npz")):
            raise ValueError(f"arrays can be written to .npy or .npz, not to {file}")
        self.file = file

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Unlike the end of training this comes, too, where a run that was stopped behind its last step goes on."""
        found = pl_module.fitted_arrays()  # type: ignore[operator]
        if found is None or not is_writer(trainer):
            return
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in found.items()}
        if self.file.endswith(".npy") and len(arrays) != 1:
            raise ValueError(f"{self.file} takes one array, not {', '.join(arrays)}: name a .npz file")
        path = Path(trainer.default_root_dir) / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("wb") as file:
            if path.suffix == ".npz":
                np.savez(file, **arrays)  # type: ignore[arg-type]
            else:
                np.save(file, next(iter(arrays.values())), allow_pickle=False)
        unfinished.replace(path)
