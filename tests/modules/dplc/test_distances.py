"""Distances against closed forms and double loops, statistics of batch norms, features."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from scipy.linalg import sqrtm
from torch import nn

from modules.components.checkpoint_file import CheckpointError
from modules.dplc import features as features_file
from modules.dplc.distances import BLOCK, bootstrap, frechet, kernel_distance, spread
from modules.dplc.evaluation import Evaluation, pixel_variance
from modules.dplc.features import RandomFeatures, TorchvisionFeatures, is_published
from modules.dplc.statistics import follow_batches, reestimate


def samples(seed: int, count: int, dims: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dims, dims, generator=generator, dtype=torch.float64)
    return torch.randn(count, dims, generator=generator, dtype=torch.float64) @ mixing + seed


def test_frechet_against_scipy() -> None:
    a, b = samples(0, 50), samples(1, 70)
    first, second = np.cov(a.numpy().T), np.cov(b.numpy().T)
    gap = ((a.mean(0) - b.mean(0)) ** 2).sum().item()
    expected = gap + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-9)
    assert frechet(a, a) == pytest.approx(0, abs=1e-8)


def test_frechet_of_one_feature_and_of_too_few_samples() -> None:
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[10.0], [16.0]])
    assert frechet(a, b) == pytest.approx(12**2 + (math.sqrt(2) - math.sqrt(18)) ** 2)
    with pytest.raises(ValueError, match="two samples of each set"):
        frechet(a[:1], b)


def test_kernel_distance_against_a_double_loop() -> None:
    a, b = samples(2, 5).float(), samples(3, 6).float()

    def k(x: torch.Tensor, y: torch.Tensor) -> float:
        return (float(x.double() @ y.double()) / 4 + 1) ** 3

    expected = sum(k(a[i], a[j]) for i in range(5) for j in range(5) if i != j) / 20
    expected += sum(k(b[i], b[j]) for i in range(6) for j in range(6) if i != j) / 30
    expected -= 2 * sum(k(x, y) for x in a for y in b) / 30
    value, error = kernel_distance(a, b)
    assert value == pytest.approx(expected, rel=1e-6) and math.isnan(error)


def test_kernel_distance_over_blocks() -> None:
    a, b = samples(4, 2 * BLOCK), samples(5, 2 * BLOCK + 1)
    value, error = kernel_distance(a, b)
    one, two = kernel_distance(a[:BLOCK], b[: BLOCK + 1])[0], kernel_distance(a[BLOCK:], b[BLOCK + 1 :])[0]
    assert value == pytest.approx((one + two) / 2)
    assert error == pytest.approx(abs(one - two) / 2)


def test_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    hits = 0
    for seed in range(100):
        x = torch.randn(40, generator=generator, dtype=torch.float64)
        low, high = bootstrap(lambda i, x=x: float(x[i].mean()), 40, draws=200, seed=seed)
        assert high - low == pytest.approx(2 * 1.96 / math.sqrt(40), rel=0.5)
        hits += low < 0 < high
    assert 86 <= hits <= 100


def test_bootstrap_is_pivotal() -> None:
    """Of a maximum, resampling only finds smaller values: the interval lies above."""
    x = torch.arange(100.0)
    low, high = bootstrap(lambda i: float(x[i].max()), 100)
    assert low == 99 and high > 100


def test_spread_is_the_mean_squared_distance_of_pairs() -> None:
    a = samples(6, 9)
    expected = sum(float(((a[i] - a[j]) ** 2).sum()) for i in range(9) for j in range(9) if i != j) / 72
    assert spread(a) == pytest.approx(expected)


def test_pixel_variance_is_over_draws() -> None:
    draws = torch.randn(6, 2, 3, 4, 5)
    expected = [np.var(draws[:, n].numpy(), axis=0).mean() for n in range(2)]
    assert pixel_variance(draws).tolist() == pytest.approx(expected, rel=1e-5)


def test_evaluation() -> None:
    x = torch.rand(6, 3, 64, 64) * 2 - 1
    x_hat = 0.5 * x
    x_hat[0] = 3.0
    evaluation = Evaluation(RandomFeatures(4))
    for part in (slice(0, 4), slice(4, 6)):
        evaluation.add(x[part], x_hat[part])
    results = evaluation.results()
    errors = [float(((torch.clamp(b, max=1) - a) ** 2).mean()) for a, b in zip(x, x_hat, strict=True)]
    assert results["images"] == 6 and results["mse"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert results["psnr"] == pytest.approx(10 * math.log10(4 / np.mean(errors)), rel=1e-5)
    assert results["mse_low"] < results["mse"] < results["mse_high"]
    real, fake = (RandomFeatures(4)(y).detach() for y in (x, x_hat.clamp(-1, 1)))
    assert results["frechet_random32"] == pytest.approx(frechet(fake, real), rel=1e-4)
    assert results["kernel"] == pytest.approx(kernel_distance(fake, real)[0], rel=1e-4)
    assert results["diversity"] == pytest.approx(spread(fake) / spread(real), rel=1e-4)
    evaluation.add(x[:3], x[:3])
    again = evaluation.results()
    assert again["images"] == 3 and again["mse"] == 0
    bare = Evaluation(None)
    bare.add(x, x_hat)
    assert set(bare.results()) == {"images", "mse", "psnr", "mse_low", "mse_high"}


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
    import hashlib

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


def test_statistics_are_plain_means_over_the_inputs() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)).eval()
    network(torch.randn(9, 2, 4, 4))
    inputs = [3 + 2 * torch.randn(5, 2, 4, 4) for _ in range(4)]
    weights = {name: p.clone() for name, p in network.named_parameters()}
    reestimate(network, network, iter(inputs))
    first = network[0]
    assert torch.allclose(first.running_mean, torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0), atol=1e-5)
    assert torch.allclose(first.running_var, torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in inputs]).mean(0))
    assert first.momentum == 0.1 and not first.training
    assert all(torch.equal(p, weights[name]) for name, p in network.named_parameters())
    normalised = network[0](torch.cat(inputs))
    assert normalised.mean().abs() < 0.05 and abs(normalised.std() - 1) < 0.05


def test_following_batches() -> None:
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout()).eval()
    follow_batches(network, True)
    assert network[0].training and not network[1].training
    x = 5 + torch.randn(8, 2, 3, 3)
    assert network(x).mean().abs() < 1e-5
    follow_batches(network, False)
    assert network(x).mean() > 0.5
