"""codec.py with a network of extreme compression: labels beside the image, --keep and --box, mistakes in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import codec
from modules.components.coding.model_file import save_weights
from modules.extreme_gan.nets import GCNet, SCNet
from tests.datamodules.test_cityscapes import write_scene


@pytest.fixture
def models() -> dict[str, str]:
    torch.manual_seed(0)
    arguments = {"code_channels": 2, "width": 4, "num_blocks": 1}
    for name, made in (("GCNet", GCNet(**arguments)), ("SCNet", SCNet(num_labels=34, **arguments))):
        config = {"class_path": f"modules.extreme_gan.nets.{name}", "init_args": arguments}
        save_weights(Path(f"{name}.pt"), config, made.state_dict(), half=True)
    return {"gc": "GCNet.pt", "sc": "SCNet.pt"}


def test_kept_regions_make_the_file(models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = write_scene(tmp_path / "set", "ulm_1", height=64, width=96)
    sizes = []
    for i, wish in enumerate(([], ["--keep", ""], ["--box", "0,0,40,40"])):
        call = ["compress", str(image), "--checkpoint", models["sc"], "--output", f"out{i}", *wish]
        assert codec.main(call) == 0
        file = Path(f"out{i}") / "ulm_1_leftImg8bit.gan"
        sizes.append(file.stat().st_size)
    assert sizes[1] < sizes[2] < sizes[0]
    assert codec.main(["info", str(file)]) == 0
    assert "extreme_gan, 96 x 64 RGB" in capsys.readouterr().out
    assert codec.main(["decompress", "out2", "--checkpoint", models["sc"], "--output", "back"]) == 0
    assert np.array(Image.open("back/ulm_1_leftImg8bit.png")).shape == (64, 96, 3)


def test_gc_needs_no_labels(models: dict[str, str]) -> None:
    Image.new("RGB", (50, 40), (9, 99, 199)).save("a.png")
    assert codec.main(["compress", "a.png", "--checkpoint", models["gc"], "--output", "out"]) == 0
    assert codec.main(["decompress", "out", "--checkpoint", models["gc"], "--output", "back"]) == 0
    assert Image.open("back/a.png").size == (50, 40)


@pytest.mark.parametrize(("model", "wish", "line"), [
    ("gc", ["--keep", "car"], "leave out --keep and --box"),
    ("sc", [], "as in Cityscapes"),
    ("sc", ["--keep", "automobile"], "no label is called 'automobile'"),
    ("sc", ["--box", "1,2"], "--box takes x,y,width,height"),
])  # fmt: skip
def test_mistakes_are_one_line(
    models: dict[str, str], model: str, wish: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = write_scene(tmp_path / "set", "ulm_1")
    if line == "as in Cityscapes":
        image = image.rename("alone.png")
    assert codec.main(["compress", str(image), "--checkpoint", models[model], "--output", "out", *wish]) == 1
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1 and not list(Path("out").rglob("*.gan"))
