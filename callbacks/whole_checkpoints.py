"""Checkpoints that are there whole or not at all, whatever happens while one is written."""

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO


class WholeCheckpoints(TorchCheckpointIO):
    """Write beside the target, to disk, and then rename: the older file stays until the new one is complete.

    Lightning's own way writes to the temporary folder and moves the file. Between file systems, and a cluster's /tmp
    seldom is where its runs are, a move is a copy over the older file: a process that is killed or a disk that fills
    up meanwhile leaves neither the new checkpoint nor the old one. What a killed process leaves, ``.<name>.part``, the
    next one overwrites. Remote paths are left to Lightning.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Raises an OSError that names the file if the disk is full."""
        if "://" in str(path) or storage_options is not None:
            return super().save_checkpoint(checkpoint, path, storage_options)
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = BytesIO()
        torch.save(checkpoint, content)
        part = target.with_name(f".{target.name}.part")
        try:
            with part.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(target)) from error
