"""Files of text that a method has to show at the end of its training."""

from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer


class TextProducts(Callback):
    """Write what the module's ``products()`` returns, a text for each file name, to the run's folder."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in pl_module.products().items():  # type: ignore[operator]
            unfinished = folder / f"{name}.tmp"
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(folder / name)
