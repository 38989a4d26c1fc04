"""Networks whose features are compared, and what a distance under them may be called."""

import hashlib
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from modules.components import features as features_file
from modules.components.checkpoint_file import CheckpointError
from modules.components.features import RandomFeatures, TorchvisionFeatures, is_published


def test_random_features_follow_from_the_seed() -> None:
    x = torch.rand(2, 3, 64, 64)
    assert RandomFeatures(4).label == "frechet_random32" and RandomFeatures(4)(x).shape == (2, 32)
    torch.manual_seed(8)
    assert torch.equal(RandomFeatures(4)(x), RandomFeatures(4)(x))
    assert not torch.equal(RandomFeatures(4)(x), RandomFeatures(4, seed=1)(x))


def test_features_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet18().eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    features = TorchvisionFeatures("resnet18", str(tmp_path / "weights.pth"))
    assert features.label == "frechet_resnet18" and features.dimensions == 512
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    resized = nn.functional.interpolate(x, (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = network(((resized + 1) / 2 - mean) / std)
        assert torch.allclose(network.fc(features(x)), expected, atol=1e-4)
    with pytest.raises(ValueError, match="torchvision has no model 'resnet19'"):
        TorchvisionFeatures("resnet19", "x")
    with pytest.raises(FileNotFoundError):
        TorchvisionFeatures("resnet18", str(tmp_path / "absent.pth"))
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth does not fit resnet18"):
        TorchvisionFeatures("resnet18", str(tmp_path / "other.pth"))


def test_only_the_published_file_may_be_called_fid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(b"weights")
    assert not is_published(file, "inception_v3")

    class Published:
        url = "https://nowhere/inception_v3_google-9f6a2f50.pth"

    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: [Published])
    assert not is_published(file, "inception_v3")
    Published.url = f"https://nowhere/x-{hashlib.sha256(b'weights').hexdigest()[:8]}.pth"
    assert is_published(file, "inception_v3")

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[2:] == (299, 299)
            return self.fc(x.mean((2, 3)))

    monkeypatch.setattr(torchvision.models, "get_model", lambda name, **_: Tiny())
    torch.save(Tiny().state_dict(), file)
    assert TorchvisionFeatures("inception_v3", str(file)).label == "frechet_inception_v3"
    monkeypatch.setattr(features_file, "is_published", lambda *_: True)
    features = TorchvisionFeatures("inception_v3", str(file))
    assert features.label == "fid_torchvision" and features(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
