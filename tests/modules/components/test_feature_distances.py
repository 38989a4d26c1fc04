"""Distances of distributions as a test gathers them."""

import pytest
import torch

from modules.components.distances import frechet, kernel_distance, spread
from modules.components.feature_distances import FeatureDistances
from modules.components.features import RandomFeatures


def test_distances_of_what_was_added() -> None:
    generator = torch.Generator().manual_seed(0)
    x, x_hat = torch.rand(2, 9, 3, 64, 64, generator=generator) * 2 - 1
    features = RandomFeatures(4)
    distances = FeatureDistances(features)
    for part in (slice(0, 4), slice(4, 9)):
        distances.add(x[part], x_hat[part] / 2)
    results = distances.results()
    real, fake = features(x).detach(), features(x_hat / 2).detach()
    assert results["frechet_random32"] == pytest.approx(frechet(fake, real), rel=1e-4)
    assert results["frechet_random32_low"] < results["frechet_random32"] < results["frechet_random32_high"]
    assert results["kernel"] == pytest.approx(kernel_distance(fake, real)[0], rel=1e-4)
    assert results["kernel_error"] != results["kernel_error"]  # of a single block there is none
    assert results["diversity"] == pytest.approx(spread(fake) / spread(real), rel=1e-4) and results["diversity"] < 1
    distances.add(x[:3], x[:3])
    again = distances.results()
    assert again["frechet_random32"] == pytest.approx(0, abs=1e-6) and again["diversity"] == pytest.approx(1)
    assert distances.results() == {}
    distances.add(x[:1], x[:1])
    assert distances.results() == {}  # of one image there is no distribution
    assert not any(p.requires_grad for p in distances.features.network.parameters())
