"""Table and picture of a lossy codec that stands for a trained one: WebP in this project's container."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from callbacks.reports.rate_distortion import (
    Point,
    RateDistortion,
    coder_of,
    engineered,
    mean_curves,
    measure,
    table_of,
    with_pillow,
)
from modules.components.coding.container import Container, Tile


class WebP:
    extension = ".w"
    fingerprint = bytes(16)

    def compress(self, image: np.ndarray, metadata: dict[str, bytes] | None = None) -> Container:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "WEBP", quality=80)
        height, width = image.shape[:2]
        tiles = [Tile(0, 0, width, height, buffer.getvalue())]
        return Container("w", bytes(16), "RGB", "float32", 0, width, height, bytes(8), {}, tiles, lossy=True)

    def read(self, container: Container) -> None:
        pass

    def decompress(self, container: Container) -> np.ndarray:
        return np.array(Image.open(io.BytesIO(container.tiles[0].payload)))


def photo(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((54, 48), Image.Resampling.BICUBIC))


def test_a_measured_point_is_of_the_file_and_of_what_it_decodes_to():
    image = photo(0)
    container = WebP().compress(image)
    decoded = WebP().decompress(container).astype(float)
    point = measure(coder_of(WebP()), image)
    header = point.bpp * 48 * 54 / 8 - len(container.tiles[0].payload)
    assert 70 < header < 100
    assert point.psnr_db == pytest.approx(10 * np.log10(255**2 / np.mean((image - decoded) ** 2)), rel=1e-4)
    assert 0 < point.ms_ssim < 1 and point.ms_ssim_db == pytest.approx(-10 * np.log10(1 - point.ms_ssim), rel=1e-3)
    better = measure(with_pillow("JPEG", quality=95), image)
    worse = measure(with_pillow("JPEG", quality=5), image)
    assert better.ms_ssim > worse.ms_ssim and better.psnr_db > worse.psnr_db and better.bpp > worse.bpp


def test_curves_are_means_in_the_order_of_their_rates():
    points = [[Point(2, 0.9, 30, 1, 1), Point(4, 0.8, 40, 1, 3)], [Point(1, 0.5, 20, 0, 0), Point(1, 0.7, 22, 0, 0)]]
    (low, high) = mean_curves({"a": points})["a"]
    assert low == pytest.approx((1, 0.6, 21, 0, 0)) and high == pytest.approx((3, 0.85, 35, 1, 2))
    assert table_of({"a": [low, high]}, "title").row_count == 2


def test_others_are_measured_at_rates_that_grow():
    found = engineered(quick=True)
    assert {"JPEG", "WebP"} <= set(found)
    for coders in found.values():
        sizes = [measure(coder, photo(1)).bpp for coder in coders]
        assert sizes == sorted(sizes)


def test_a_run_ends_with_a_table_a_picture_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = SimpleNamespace(held_out_images=lambda: {f"{i}.png": photo(i) for i in range(3)})
    trainer = SimpleNamespace(datamodule=data, loggers=[], global_step=1)
    report = RateDistortion(str(tmp_path / "report"), num_images=2)
    module = SimpleNamespace(codec=WebP)
    report.setup(trainer, module, "fit")  # type: ignore[arg-type]
    report.on_fit_end(trainer, module)  # type: ignore[arg-type]
    printed = capsys.readouterr().out
    assert "ours" in printed and "JPEG" in printed and "2 held-out photographs" in printed
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == ["0.png", "0.w", "1.png", "1.w", "rate_distortion.png"]
    assert np.array(Image.open(tmp_path / "report" / "1.png")).shape == (48, 54, 3)


def test_what_lacks_a_codec_or_images_is_refused_for_fit_only():
    trainer = SimpleNamespace(datamodule=object())
    with pytest.raises(ValueError, match=r"codec\(\) and data with held_out_images\(\)"):
        RateDistortion("report").setup(trainer, SimpleNamespace(codec=None), "fit")  # type: ignore[arg-type]
    RateDistortion("report").setup(trainer, object(), "test")  # type: ignore[arg-type]
