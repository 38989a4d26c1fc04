"""Folders given as a checkpoint."""

from pathlib import Path

import pytest

from modules.components.checkpoint_file import CheckpointError, require_sharded


@pytest.mark.parametrize("name", [".metadata", "latest"])  # of FSDP and of DeepSpeed
def test_a_folder_is_a_checkpoint_if_its_shards_are_named(name: str) -> None:
    folder = Path("last.ckpt")
    folder.mkdir()
    with pytest.raises(CheckpointError, match=r"last\.ckpt is a folder and no sharded checkpoint"):
        require_sharded(folder)
    (folder / name).touch()
    require_sharded(folder)
