"""Classes and label maps straight from files, without the codec's networks."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from modules.components import autoencoder
from modules.components.coding.container import pack, unpack
from modules.compressed_domain import predict
from modules.compressed_domain.checkpoints import codebook_entry
from modules.compressed_domain.codec import Codec
from modules.compressed_domain.nets import CodeResNet, CodeResNetD, CompressionNet, RGBResNet
from modules.compressed_domain.predict import main
from tests.modules.compressed_domain.small import settled

NETS = "modules.compressed_domain.nets."
SIZES = {"channels": 4, "num_classes": 3, "depth": 39, "width": 2}
IMAGES = {"a": (40, 56), "b": (33, 47)}


def codec_network() -> CompressionNet:
    return settled(0, 4, 6, 4, 1)


def classifier(kind: type[nn.Module] = CodeResNet) -> nn.Module:
    torch.manual_seed(1)
    network = kind(**SIZES).eval()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.2)  # so that answers differ
    return network


def checkpoint(path: Path, network: nn.Module, joint: bool = False, **changes: object) -> str:
    described = {"class_path": NETS + type(network).__name__, "init_args": dict(SIZES)}
    prefix, settings = "network.", {"network": described}
    if joint:
        prefix = "classifier."
        settings = {"network": {"class_path": NETS + "CompressionNet", "init_args": {}}, "classifier": described}
    state = {f"{prefix}{name}": value for name, value in network.state_dict().items()}
    content = {"hyper_parameters": settings, "state_dict": state, "codebook": codebook_entry(codec_network())}
    torch.save(content | changes, path)
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    random, codec = np.random.default_rng(0), Codec(codec_network())
    (tmp_path / "in").mkdir()
    for name, size in IMAGES.items():
        image = Image.fromarray(random.integers(0, 256, (6, 7, 3), dtype=np.uint8)).resize(size[::-1])
        (tmp_path / "in" / f"{name}.cdom").write_bytes(pack(codec.compress(np.array(image))))
    return tmp_path / "in"


def expected(files: Path, name: str, network: nn.Module) -> torch.Tensor:
    codec = codec_network()
    symbols = Codec(codec).read(unpack((files / f"{name}.cdom").read_bytes()))
    with torch.no_grad():
        return network(codec.quantizer.levels[torch.from_numpy(symbols)][None])[0]


@pytest.mark.parametrize("joint", [False, True])
def test_classes_of_files(files: Path, joint: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    network = classifier()
    path = checkpoint(files.parent / "best.ckpt", network, joint)
    wanted = {name: expected(files, name, network).softmax(0) for name in IMAGES}
    for part in ("Encoder", "Decoder"):
        monkeypatch.setattr(getattr(autoencoder, part), "__init__", lambda *_: pytest.fail("the codec is built"))
    assert main([str(files), "--checkpoint", path, "--output", "out"]) == 0
    for name, probabilities in wanted.items():
        told = json.loads(Path(f"out/{name}.json").read_text())
        assert told["file"] == f"{name}.cdom" and told["class"] == str(int(probabilities.argmax()))
        assert list(told["probabilities"]) == ["0", "1", "2"]
        torch.testing.assert_close(torch.tensor(list(told["probabilities"].values())), probabilities)
    assert not torch.allclose(wanted["a"], wanted["b"])


def test_label_maps_have_the_images_size(files: Path, capsys: pytest.CaptureFixture) -> None:
    network = classifier(CodeResNetD)
    path = checkpoint(files.parent / "best.ckpt", network)
    assert main([str(files / "a.cdom"), str(files / "b.cdom"), "--checkpoint", path, "--output", "out"]) == 0
    for name, (height, width) in IMAGES.items():
        with Image.open(f"out/{name}.png") as image:
            labels = np.array(image)
        assert np.array_equal(labels, expected(files, name, network)[:, :height, :width].argmax(0))
        assert len(np.unique(labels)) > 1
    assert "b.cdom: " in capsys.readouterr().out


def test_names_of_classes(files: Path, capsys: pytest.CaptureFixture) -> None:
    path = checkpoint(files.parent / "best.ckpt", classifier())
    Path("names.txt").write_text("cat\tan animal\n\ndog\nreel\n")
    words = [str(files / "a.cdom"), "--checkpoint", path, "--output", "out", "--classes"]
    assert main([*words, "names.txt"]) == 0
    told = json.loads(Path("out/a.json").read_text())
    assert list(told["probabilities"]) == ["cat", "dog", "reel"]
    assert told["class"] == max(told["probabilities"], key=told["probabilities"].get)
    wrong = {"cat\ndog\n": "names 2 classes, the network has 3", "cat\ndog\ncat\n": "names cat twice"}
    for text, message in wrong.items():
        Path("two.txt").write_text(text)
        assert main([*words, "two.txt"]) == 2
        assert message in capsys.readouterr().err
    assert main([*words, "none.txt"]) == 2
    Path("latin.txt").write_bytes(b"caf\xe9\ndog\nreel\n")
    assert main([*words, "latin.txt", "--force"]) == 0
    assert list(json.loads(Path("out/a.json").read_text())["probabilities"]) == ["caf\ufffd", "dog", "reel"]


def test_one_bad_file_does_not_stop_the_others(
    files: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoint(files.parent / "best.ckpt", classifier())
    (files / "bad.cdom").write_bytes((files / "a.cdom").read_bytes()[:-9])
    other = codec_network()
    with torch.no_grad():
        other.quantizer.levels += 1
    (files / "other.cdom").write_bytes(pack(Codec(other).compress(np.zeros((8, 8, 3), np.uint8))))
    assert main([str(files), "missing.cdom", "--checkpoint", path, "--output", "out"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3 and all(line.startswith("error: ") for line in told)
    assert "bad.cdom" in told[0] and "other.cdom: the file needs model" in told[1] and "missing.cdom" in told[2]
    assert sorted(p.name for p in Path("out").iterdir()) == ["a.json", "b.json"]
    os.mkfifo("pipe.cdom")  # which would be read for ever
    assert main(["pipe.cdom", "--checkpoint", path, "--output", "out"]) == 1
    assert "pipe.cdom: not a regular file" in capsys.readouterr().err
    monkeypatch.setattr(predict, "MAX_FILE", 100)
    assert main([str(files / "a.cdom"), "--checkpoint", path, "--output", "new"]) == 1
    assert "a.cdom: more than 0 MiB" in capsys.readouterr().err


def test_results_are_overwritten_on_request_only(files: Path, capsys: pytest.CaptureFixture) -> None:
    path = checkpoint(files.parent / "best.ckpt", classifier())
    words = [str(files / "a.cdom"), "--checkpoint", path, "--output", "out"]
    assert main(words) == 0 and main(words) == 1
    assert "a.json exists; --force overwrites it" in capsys.readouterr().err
    Path("out/a.json").write_text("old")
    assert main([*words, "--force"]) == 0 and Path("out/a.json").read_text() != "old"
    (files / "deep").mkdir()
    (files / "deep" / "a.cdom").write_bytes((files / "a.cdom").read_bytes())
    assert main([str(files), "--checkpoint", path, "--output", "new"]) == 1
    assert "another input already becomes new/a.json" in capsys.readouterr().err


def test_checkpoints_that_cannot_read_files(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def told(path: object) -> str:
        assert main([str(files), "--checkpoint", str(path), "--output", "out"]) == 2
        return capsys.readouterr().err

    assert "no checkpoint" in told("missing.ckpt")
    wide = {"network": {"class_path": NETS + "CodeResNet", "init_args": SIZES | {"width": 3}}}
    assert "does not fit" in told(checkpoint(tmp_path / "wide.ckpt", classifier(), hyper_parameters=wide))
    huge = {"network": {"class_path": NETS + "CodeResNet", "init_args": SIZES | {"width": 1 << 17}}}
    assert "is more than 65536" in told(checkpoint(tmp_path / "huge.ckpt", classifier(), hyper_parameters=huge))
    many = {"network": {"class_path": NETS + "CodeResNetD", "init_args": SIZES | {"num_classes": 256}}}
    path = checkpoint(tmp_path / "many.ckpt", classifier(CodeResNetD), hyper_parameters=many)
    assert "an 8-bit label map holds 255 classes, not 256" in told(path)
    rgb = {"network": {"class_path": NETS + RGBResNet.__name__, "init_args": {}}}
    path = checkpoint(tmp_path / "rgb.ckpt", classifier(), hyper_parameters=rgb)
    assert "holds a RGBResNet, which does not read codes" in told(path)
    strange = {"network": {"class_path": "os.system", "init_args": {}}}
    assert "does not read codes" in told(checkpoint(tmp_path / "os.ckpt", classifier(), hyper_parameters=strange))
    assert "knows no codec" in told(checkpoint(tmp_path / "original.ckpt", classifier(), codebook=None))
    entry = codebook_entry(codec_network())
    for change in ({"model": "xy"}, {"channels": 0}, {"centers": torch.zeros(1)}, {"centers": [1.0, 2.0]}):
        path = checkpoint(tmp_path / "damaged.ckpt", classifier(), codebook=entry | change)
        assert "holds a damaged codebook" in told(path)
    path = checkpoint(tmp_path / "other.ckpt", classifier(), codebook=entry | {"channels": 5})
    assert "its network takes other channels than its codec has" in told(path)
    for value in (float("nan"), float("inf")):
        odd = classifier()
        with torch.no_grad():
            odd.classifier.bias[1] = value
        assert "weight classifier.bias is not finite" in told(checkpoint(tmp_path / "nan.ckpt", odd))
    path = checkpoint(tmp_path / "nan.ckpt", classifier(), codebook=entry | {"centers": torch.tensor([0.0, torch.nan])})
    assert "holds a damaged codebook" in told(path)
    codec = {"state_dict": {"network.encoder.x": torch.zeros(1)}}
    assert "no network that classifies" in told(checkpoint(tmp_path / "codec.ckpt", classifier(), **codec))
    torch.save({"state_dict": {}}, tmp_path / "bare.ckpt")
    assert "is no checkpoint of this method" in told(tmp_path / "bare.ckpt")
    (tmp_path / "empty").mkdir()
    good = checkpoint(tmp_path / "good.ckpt", classifier())
    assert main([str(tmp_path / "empty"), "--checkpoint", good, "--output", "out"]) == 2
    assert "no .cdom file in" in capsys.readouterr().err
