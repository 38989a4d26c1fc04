"""Image files of every kind that the readers must take or leave."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WritePhoto = Callable[..., Path]


@pytest.fixture
def write_photo() -> WritePhoto:
    """``write_photo(path, height, width, mode, cut)``: a random smooth image; ``cut`` keeps that share of its bytes."""

    def write(path: Path, height: int = 40, width: int = 48, mode: str = "RGB", cut: float = 1.0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(sum(path.name.encode()))
        coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        image = coarse.resize((width, height), Image.Resampling.BICUBIC)
        image = image.convert("RGB").convert("I;16") if mode == "I;16" else image.convert(mode)
        image.save(path, **({"lossless": True} if path.suffix == ".webp" else {}))
        if cut < 1:
            path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
        return path

    return write
