"""The chain of stages by the shipped configs: each starts from those before, resumes exactly and reads its config."""

from pathlib import Path

import pytest
import torch
import yaml

import codec as program
from modules.compressed_domain import predict
from tests.modules.compressed_domain.small import (
    CONFIGS,
    codec_options,
    content,
    fit,
    last,
    network_options,
    write_classes,
    write_scenes,
)
from train import main


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARSIMONY_DATA", str(tmp_path))
    write_classes(tmp_path)
    write_scenes(tmp_path)


def twice(config: str, *options: str, folder: str) -> str:
    """A run of four steps, and one that stops after two, in the middle of an epoch, and goes on: equal weights."""
    steps = "" if "camvid" in config else "--model.init_args.lr_scheduler.init_args.total_steps=8"
    options = (*options, *filter(None, [steps]))
    whole = fit(config, *options, folder=folder, steps=3)
    part = fit(config, *options, folder=f"{folder}-part", steps=2)
    middle = content(part)["state_dict"]
    rest = fit(config, *options, "--ckpt_path", last(part), folder=f"{folder}-part", steps=3)
    expected, found = content(whole)["state_dict"], content(rest)["state_dict"]
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert any(not torch.equal(value, middle[name]) for name, value in expected.items())
    return last(whole)


@pytest.mark.timeout(900)
def test_the_chain(data: None, capsys: pytest.CaptureFixture) -> None:
    codec = twice("tiny_codec", *codec_options("network"), folder="runs/codec")
    frozen = [*codec_options("codec"), f"--model.init_args.codec_weights={codec}"]
    on_images = network_options("network", num_classes=2)
    on_code = [*on_images, *network_options("network", channels=4)]
    code = last(fit("tiny_cresnet", *frozen, *on_code, folder="runs/code"))
    rgb = last(fit("tiny_resnet", *frozen, *on_images, folder="runs/rgb"))
    scenes = ["--data.init_args.size=[64,96]", "--data.init_args.crop=[32,32]", "--trainer.check_val_every_n_epoch=1"]
    scenes += ["--data.init_args.batch_size=1"]
    d = [*network_options("network", channels=4), "--model.init_args.lr_scheduler.init_args.total_iters=8"]
    seg = twice("camvid_cresnet", *frozen, *d, f"--model.init_args.start_weights={code}", *scenes, folder="runs/seg")
    fit("camvid_resnet", *frozen, *network_options("network"), f"--model.init_args.start_weights={rgb}", *scenes)
    joint = [*codec_options("network"), *network_options("classifier", num_classes=2, channels=4)]
    weights = [f"--model.init_args.codec_weights={codec}", f"--model.init_args.start_weights={code}"]
    together = twice("tiny_joint", *joint, *weights, folder="runs/joint")
    new = [*codec_options("codec"), f"--model.init_args.codec_weights={together}"]
    fit("tiny_cresnet", *new, *on_code, f"--model.init_args.start_weights={together}", folder="runs/scratch")
    for model, networks in ((codec, (code, seg)), (together, (together,))):
        images, out = str(Path("tiny_imagenet/val/n01")), f"files{len(networks)}"
        assert program.main(["compress", images, "--checkpoint", model, "--output", out]) == 0
        for number, path in enumerate(networks):
            assert predict.main([out, "--checkpoint", path, "--output", f"{out}-{number}"]) == 0
    assert len(list(Path("files2-0").glob("*.json"))) == len(list(Path("files2-1").glob("*.png"))) == 8
    assert len(list(Path("files1-0").glob("*.json"))) == 8


def test_figures_and_products_of_the_codec(data: None) -> None:
    run = fit("tiny_codec", *codec_options("network"), "--trainer.max_epochs=1", "--data.init_args.batch_size=8")
    row = yaml.safe_load((run / "result.json").read_text())["fit"]["metrics"]
    assert {"val/bpp", "val/psnr_db", "train/mse", "train/entropy"} <= set(row)
    assert 0 <= row["val/bpp"] <= 4 * 2.585 / 64 and (run / "draws.fit.png").is_file()


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_configs_are_read(name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(CONFIGS / f"{name}.yaml"), "--print_config"])
    assert not stop.value.code
    model = yaml.safe_load(capsys.readouterr().out)["model"]
    assert model["class_path"].startswith("modules.compressed_domain.")


@pytest.mark.parametrize(("rate", "channels", "bpp"), [("0330", 16, 0.330), ("0098", 8, 0.0983)])
def test_operating_points(rate: str, channels: int, bpp: float, capsys: pytest.CaptureFixture) -> None:
    files = [CONFIGS / "imagenet_codec.yaml", CONFIGS / "overlays" / f"bpp{rate}.yaml"]
    with pytest.raises(SystemExit):
        main(["fit", *(word for file in files for word in ("--config", str(file))), "--print_config"])
    options = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert options["network"]["init_args"]["channels"] == channels
    assert options["target_entropy"] * channels / 64 == pytest.approx(bpp, rel=0.01)
