"""Curves of several runs from what their tests left, and the Gaussian number whose curve is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modules.dplc.curve import draw_curves, main, of_samples, with_ratios
from modules.dplc.gaussian import GaussianCodec, best_error, lloyd_max, measure, train


def run_of(folder: Path, shade: int, **metrics: float) -> Path:
    folder.mkdir(parents=True)
    content = {"test": {"metrics": {f"test/{name}": value for name, value in metrics.items()}}}
    (folder / "result.json").write_text(json.dumps(content))
    columns = np.arange(4).repeat(64) * 10 + shade
    Image.fromarray(np.broadcast_to(columns[None, :, None], (128, 256, 3)).astype(np.uint8)).save(
        folder / "draws.test.png"
    )
    return folder


def test_table_and_pictures(tmp_path: Path) -> None:
    names = ["frechet_random32", "frechet_random32_low", "frechet_random32_high"]
    distances = dict(zip(names, (3.0, 2.0, 4.0), strict=True))
    sampled = {f"sample_{name}": value for name, value in distances.items()}
    zero = run_of(tmp_path / "zero", 0, mse=0.5, sample_mse=0.9, **sampled)
    codes = [
        run_of(tmp_path / f"c{c}", c, bpp=c / 256, mse=0.3 - c / 100, pixel_variance=0.1, **distances) for c in (8, 2)
    ]
    plain = [run_of(tmp_path / "cae", 100, bpp=8 / 256, mse=0.2, pixel_variance=0.0, **distances)]
    words = ["--zero", zero, "--codes", *codes, "--autoencoders", *plain, "--output", tmp_path / "out" / "curve"]
    main([str(word) for word in [*words, "--images", 1, "--scale", 2]])
    table = json.loads((tmp_path / "out" / "curve.json").read_text())
    assert [row["bpp"] for row in table["DPLC"]] == [0, 2 / 256, 8 / 256]
    assert table["DPLC"][0] == {"bpp": 0, "mse": 0.9} | distances
    assert table["DPLC"][2]["mse_ratio"] == pytest.approx(0.22 / 0.2)
    assert "mse_ratio" not in table["DPLC"][1] and len(table["autoencoder"]) == 1
    assert Image.open(tmp_path / "out" / "curve.png").width > 800
    sheet = np.asarray(Image.open(tmp_path / "out" / "curve_images.png"))[::128, ::128, 0]
    assert sheet.tolist() == [[100, 110, 120, 18, 28, 12, 22]]


def test_runs_that_were_not_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "result.json").write_text('{"fit": {}}')
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(SystemExit) as left:
            main(["--codes", str(folder), "--output", str(tmp_path / "x")])
        assert left.value.code == 2 and "run train.py test on it first" in capsys.readouterr().err


def test_rows() -> None:
    assert of_samples({"sample_mse": 1.0, "mse": 2.0}) == {"bpp": 0.0, "mse": 1.0}
    table = {"DPLC": [{"bpp": 1.0, "mse": 3.0}], "autoencoder": [{"bpp": 1.0, "mse": 2.0}]}
    assert with_ratios(table)["DPLC"] == [{"bpp": 1.0, "mse": 3.0, "mse_ratio": 1.5}]


def test_a_panel_for_each_measure(tmp_path: Path) -> None:
    rows = [{"bpp": 0.1, "mse": 1.0, "pixel_variance": 0.0}]
    draw_curves({"DPLC": rows, "autoencoder": []}, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").width == 880


def test_quantisers_of_a_gaussian() -> None:
    """Max 1960, table I: errors 0.3634, 0.1175, 0.03454; edges of four levels -0.9816, 0, 0.9816."""
    assert lloyd_max(1).error == pytest.approx(1) and len(lloyd_max(1).edges) == 0
    assert lloyd_max(2).error == pytest.approx(1 - 2 / np.pi, abs=1e-6)
    assert lloyd_max(4).error == pytest.approx(0.1175, abs=1e-4)
    assert lloyd_max(4).edges == pytest.approx([-0.9816, 0, 0.9816], abs=1e-3)
    assert lloyd_max(8).error == pytest.approx(0.03454, abs=1e-4)
    assert best_error(2, 0.1) == pytest.approx(0.36338 + (0.36338**0.5 - 0.1) ** 2, abs=1e-4)
    assert best_error(2, 0.7) == lloyd_max(2).error
    assert best_error(1) == 2 and best_error(2) == pytest.approx(0.7268, abs=1e-4)


def test_the_best_code_of_one_bit_reaches_the_bound() -> None:
    """Sign of X, then a random |X|: error 2 (1 - 2 / pi), reconstructions N(0, 1)."""

    class Best(GaussianCodec):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sign() * torch.randn_like(x).abs()

    out = measure(Best(1))
    assert out.mse == pytest.approx(best_error(2), rel=0.01) and out.distance < 0.02
    assert out.variance == pytest.approx(1, rel=0.01)
    assert out.conditional_variance == pytest.approx(1 - 2 / np.pi, rel=0.01)


@pytest.mark.parametrize(("bits", "steps"), [(0, 250), (2, 700)])
def test_a_trained_system_lands_on_the_curve(bits: int, steps: int) -> None:
    out = measure(train(bits, steps), count=50_000)
    levels = 2**bits
    assert out.cells == levels
    assert out.mse == pytest.approx(best_error(levels, out.distance), rel=0.2)
    assert out.mse > 1.4 * lloyd_max(levels).error and out.distance < 0.25
    assert out.conditional_variance > 0.5 * lloyd_max(levels).error


def test_from_random_weights_two_bits_make_no_four_cells() -> None:
    assert measure(train(2, 60, start="random"), count=50_000).cells < 4


def test_without_the_mmd_it_is_a_quantiser() -> None:
    """Better than the mean, no better than Lloyd and Max, and deterministic."""
    out = measure(train(1, 250, mmd_weight=0.0), count=50_000)
    assert lloyd_max(2).error - 0.01 < out.mse < 0.7 and out.conditional_variance < 0.02
