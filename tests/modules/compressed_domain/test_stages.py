"""The chain of stages by the shipped configs: each starts from the checkpoints of those before."""

from pathlib import Path

import pytest

from tests.modules.compressed_domain.small import codec_options, fit, last, network_options, write_classes, write_scenes


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARSIMONY_DATA", str(tmp_path))
    write_classes(tmp_path)
    write_scenes(tmp_path)


def test_the_chain(data: None) -> None:
    codec = last(fit("tiny_codec", *codec_options("network"), folder="runs/codec"))
    frozen = [*codec_options("codec"), f"--model.init_args.codec_weights={codec}"]
    on_images = network_options("network", num_classes=2)
    on_code = [*on_images, *network_options("network", channels=4)]
    code = last(fit("tiny_cresnet", *frozen, *on_code, folder="runs/code"))
    rgb = last(fit("tiny_resnet", *frozen, *on_images, folder="runs/rgb"))
    scenes = ["--data.init_args.size=[64,96]", "--data.init_args.crop=[32,32]", "--trainer.check_val_every_n_epoch=1"]
    d = network_options("network", channels=4)
    fit("camvid_cresnet", *frozen, *d, f"--model.init_args.start_weights={code}", *scenes, folder="runs/segcode")
    fit("camvid_resnet", *frozen, *network_options("network"), f"--model.init_args.start_weights={rgb}", *scenes)
    joint = [*codec_options("network"), *network_options("classifier", num_classes=2, channels=4)]
    weights = [f"--model.init_args.codec_weights={codec}", f"--model.init_args.start_weights={code}"]
    together = last(fit("tiny_joint", *joint, *weights, folder="runs/joint"))
    fit("tiny_control", *frozen, *on_code, f"--model.init_args.start_weights={code}", folder="runs/control")
    new = [*codec_options("codec"), f"--model.init_args.codec_weights={together}"]
    fit("tiny_cresnet", *new, *on_code, f"--model.init_args.start_weights={together}", folder="runs/scratch")
