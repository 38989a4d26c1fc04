"""What a test gathers, and statistics of batch norms."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from modules.components.distances import frechet, kernel_distance, spread
from modules.components.features import RandomFeatures
from modules.dplc.evaluation import Evaluation, pixel_variance
from modules.dplc.statistics import follow_batches, reestimate


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
