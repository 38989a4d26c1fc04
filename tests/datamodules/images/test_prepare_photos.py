"""The command that prepares photographs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.images.prepare_photos import (
    Preparation,
    draw_scale,
    main,
    mean_saturation_and_value,
    prepare_photo,
)
from tests.datamodules.conftest import WritePhoto

SMALL = Preparation(min_side=50)


def save(path: Path, colour: tuple[int, int, int]) -> None:
    Image.new("RGB", (100, 100), colour).save(path)


def test_scales_fill_their_range() -> None:
    scales = [draw_scale(f"{i}.jpg", 1024, Preparation()) for i in range(300)]
    assert all(scale is not None and 0.5 <= scale <= 0.8 for scale in scales)
    assert min(scales) < 0.51  # type: ignore[type-var]
    assert max(scales) > 0.79  # type: ignore[type-var]
    assert draw_scale("a.jpg", 1024, Preparation()) == draw_scale("a.jpg", 1024, Preparation())
    assert draw_scale("a.jpg", 1024, Preparation(seed=1)) != draw_scale("a.jpg", 1024, Preparation())
    assert draw_scale("a.jpg", 639, Preparation()) is None


def test_saturation_and_value() -> None:
    pixels = np.array([[[255, 0, 0], [0, 0, 0]], [[100, 50, 75], [51, 51, 51]]], dtype=np.uint8)
    saturation, value = mean_saturation_and_value(pixels)
    assert saturation == pytest.approx((1 + 0 + 0.5 + 0) / 4)
    assert value == pytest.approx((255 + 0 + 100 + 51) / 4 / 255)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_output_is_the_lanczos_scaled_photo(tmp_path: Path, write_photo: WritePhoto, suffix: str) -> None:
    write_photo(tmp_path / "in" / "sub" / "a.png", 80, 100)
    preparation = SMALL._replace(format=suffix, max_value=1)
    assert prepare_photo("sub/a.png", tmp_path / "in", tmp_path / "out", preparation) == "written"
    scale = draw_scale("sub/a.png", 80, preparation)
    assert scale is not None
    with (
        Image.open(tmp_path / "in" / "sub" / "a.png") as photo,
        Image.open(tmp_path / "out" / f"sub/a.{suffix}") as out,
    ):
        expected = photo.resize((round(100 * scale), round(80 * scale)), Image.Resampling.LANCZOS)
        assert np.array_equal(np.asarray(out), np.asarray(expected))
    assert [path.name for path in (tmp_path / "out" / "sub").iterdir()] == [f"a.{suffix}"]


def test_what_is_dropped(tmp_path: Path, write_photo: WritePhoto) -> None:
    save(tmp_path / "red.png", (200, 0, 0))
    save(tmp_path / "bright.png", (230, 220, 225))
    save(tmp_path / "fine.png", (120, 100, 90))
    write_photo(tmp_path / "gray.png", 100, 100, mode="L")
    write_photo(tmp_path / "cmyk.jpg", 100, 100, mode="CMYK")
    write_photo(tmp_path / "cut.png", 100, 100, cut=0.5)
    write_photo(tmp_path / "small.png", 62, 100)
    ends = {
        path.stem: prepare_photo(path.name, tmp_path, tmp_path / "out", SMALL) for path in list(tmp_path.glob("*.*"))
    }
    assert ends == {
        "red": "too saturated or too bright",
        "bright": "too saturated or too bright",
        "fine": "written",
        "gray": "not 8-bit RGB",
        "cmyk": "not 8-bit RGB",
        "cut": "unreadable",
        "small": "too small for the scale range",
    }


def test_the_command_continues_where_it_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, dest = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for i in range(3):
        save(source / f"{i}.png", (120, 100, 60 + 10 * i))
    command = [str(source), str(dest), "--min-side", "50", "--workers", "2"]
    assert main(command) == 0
    assert "3 files: 3 written" in capsys.readouterr().out
    first = {path.name: path.read_bytes() for path in dest.glob("*.png")}
    (dest / "1.png").unlink()
    (dest / "1.png.part").write_bytes(b"left by an interrupted run")
    assert main(command) == 0
    assert "2 already there" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in dest.glob("*.png")} == first
    assert not list(dest.glob("*.part"))
    assert main([*command, "--seed", "7"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "absent"), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"prepare_photos: no folder {tmp_path / 'absent'}\n"
    (tmp_path / "in").mkdir()
    assert main([str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    save(tmp_path / "in" / "a.png", (9, 9, 9))
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), "--workers", "1"]) == 1
    save(tmp_path / "in" / "a.jpg", (9, 9, 9))
    assert main([str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    assert "differ only in their suffix: a" in capsys.readouterr().err
    for bad in (["--max-scale", "1.5"], ["--min-side", "0"], ["--format", "jpg"]):
        with pytest.raises(SystemExit) as stop:
            main(["a", "b", *bad])
        assert stop.value.code == 2
