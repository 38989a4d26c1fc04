"""Pictures and tables of a codec of scenes, with a stand-in codec; other codecs at equal size."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from callbacks.reports.equal_bits import ENCODERS, at_most, peers
from callbacks.reports.scene_pictures import ScenePictures, draw_rows, label_colours, masked, mse_of, psnr_db
from modules.components.coding.container import Container, Tile, unpack

RNG = np.random.default_rng(0)
IMAGE = np.array(Image.fromarray(RNG.integers(0, 256, (9, 12, 3), np.uint8)).resize((96, 64), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("name", peers())
def test_the_best_that_fits_or_else_the_smallest(name: str) -> None:
    smallest, best = at_most(IMAGE, name, 0), at_most(IMAGE, name, 1500)
    assert smallest.num_bytes == len(ENCODERS[name](IMAGE, 0)) <= best.num_bytes <= 1500
    assert psnr_db(best.pixels, IMAGE) > psnr_db(smallest.pixels, IMAGE) and best.pixels.shape == IMAGE.shape
    larger = at_most(IMAGE, name, 3000)
    assert best.num_bytes < larger.num_bytes <= 3000
    assert best.num_bytes > 1000  # the search comes near


def test_peers_are_those_of_this_pillow() -> None:
    assert ("WebP" in peers()) == features.check("webp") and set(peers()) <= set(ENCODERS)


def test_errors_and_colours() -> None:
    other = IMAGE.astype(int) + 2
    where = np.zeros((64, 96), bool)
    assert psnr_db(other, IMAGE) == pytest.approx(10 * np.log10(255**2 / 4)) and psnr_db(IMAGE, IMAGE) == float("inf")
    assert np.isnan(mse_of(other, IMAGE, where))
    where[3:5, 7] = True
    other[~where] += 50
    assert mse_of(other, IMAGE, where) == 4
    colours = label_colours(np.array([[0, 33, 255, 0]]))
    assert colours.shape == (1, 4, 3) and (colours[0, 2] == 0).all()
    assert np.array_equal(colours[0, 0], colours[0, 3]) and not np.array_equal(colours[0, 0], colours[0, 1])
    dark = masked(IMAGE, where)
    assert np.array_equal(dark[3:5, 7], IMAGE[3:5, 7]) and np.array_equal(dark[0], IMAGE[0] // 3)
    assert masked(IMAGE, None) is IMAGE


class Halves:
    """A codec that keeps the upper half of an image, exactly, and paints the rest gray."""

    extension = ".half"
    network = SimpleNamespace(stride=8)

    def compress(self, image: np.ndarray, metadata: Any = None, side: Any = None) -> Container:
        tile = Tile(0, 0, 96, 64, image[:32].tobytes() + bytes(side or 0))
        return Container("halves", bytes(16), "RGB", "float32", 0, 96, 64, bytes(8), {}, [tile])

    def read(self, container: Container) -> Any:
        return SimpleNamespace(keep=np.arange(8)[:, None].repeat(12, 1) < 4)

    def decompress(self, container: Container) -> np.ndarray:
        pixels = np.full((64, 96, 3), 128, np.uint8)
        pixels[:32] = np.frombuffer(container.tiles[0].payload[: 32 * 96 * 3], np.uint8).reshape(32, 96, 3)
        return pixels


def scenes(count: int) -> list[dict[str, Any]]:
    mask = RNG.integers(0, 34, (64, 96))
    return [{"image": IMAGE, "mask": mask, "instance": mask, "name": f"s{i}"} for i in range(count)]


def report(folder: Path, **options: Any) -> tuple[ScenePictures, Any, Any]:
    datamodule = SimpleNamespace(held_out_scenes=scenes)
    trainer = SimpleNamespace(datamodule=datamodule, loggers=[], is_global_zero=True)
    module = SimpleNamespace(codec=Halves, side_information=lambda scene, keep: len(keep or "12345"), device="cpu")
    return ScenePictures(str(folder), **options), trainer, module


def test_the_report_writes_files_a_picture_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    callback, trainer, module = report(tmp_path / "report", num_images=2, keep=[None, "car"])
    callback.setup(trainer, module, "fit")
    callback.on_fit_end(trainer, module)
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == ["s0-0.half", "s0-1.half", "s1-0.half", "s1-1.half", "scenes.png"]
    out = capsys.readouterr().out
    assert "keeps all" in out and "keeps car" in out and "50.0 %" in out and "pictures" in out
    size = (tmp_path / "report/s0-0.half").stat().st_size
    assert f"{8 * size / (64 * 96):.4f}" in out and str(size) in out
    rest = mse_of(np.full_like(IMAGE, 128), IMAGE, np.arange(64)[:, None].repeat(96, 1) >= 32)
    assert f"{rest:.1f}" in out and len(unpack((tmp_path / "report/s0-1.half").read_bytes()).tiles) == 1
    width, height = Image.open(tmp_path / "report/scenes.png").size
    assert width > height
    callback.on_test_end(trainer, module)


def test_what_the_report_needs(tmp_path: Path) -> None:
    callback, trainer, module = report(tmp_path, baselines={"MSE": str(tmp_path / "none.ckpt")})
    with pytest.raises(FileNotFoundError, match="no baseline checkpoint"):
        callback.setup(trainer, module, "fit")
    del module.side_information
    with pytest.raises(ValueError, match=r"needs a module with codec\(\) and side_information\(\)"):
        callback.setup(trainer, module, "fit")


def test_rows_become_one_picture(tmp_path: Path) -> None:
    from callbacks.reports.scene_pictures import Shown

    path = draw_rows([[Shown("a", IMAGE), Shown("b", IMAGE)]] * 3, tmp_path / "x.png")
    assert Image.open(path).size[0] == 640
