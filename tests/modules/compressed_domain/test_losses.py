"""Histograms, the rate and its gradient, the terms of the losses, the running figures."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.metrics import jaccard_score
from torch.nn.functional import cross_entropy
from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure

from modules.compressed_domain.losses import (
    entropy_bits,
    excess,
    missed,
    pixel_cross_entropy,
    rate,
    symbol_counts,
)
from modules.compressed_domain.metrics import BitsPerPixel, CodecFigures, MeanIoU, TopErrors, psnr_db, to_8_bits


def test_histogram_and_entropy() -> None:
    symbols = torch.randint(5, (3, 4, 2, 2), generator=torch.Generator().manual_seed(0))
    counts = symbol_counts(symbols, 6)
    assert counts.tolist() == np.bincount(symbols.flatten(), minlength=6).tolist()
    assert float(entropy_bits(counts)) == pytest.approx(entropy(counts.numpy(), base=2), rel=1e-6)
    assert float(entropy_bits(torch.tensor([8, 0, 0]))) == 0
    assert float(entropy_bits(torch.tensor([8, 8]))) == 1


def test_rate_is_the_entropy_with_the_gradient_of_soft_against_hard() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 3, 4, 4, generator=generator, requires_grad=True)
    centers = torch.tensor([-1.0, 0.0, 1.5])
    assignments = torch.softmax(-((z.unsqueeze(-1) - centers) ** 2), -1)
    counts = symbol_counts(assignments.argmax(-1), 3)
    bits = rate(assignments, counts)
    assert float(bits.detach()) == pytest.approx(entropy(counts.numpy(), base=2), rel=1e-5)
    [found] = torch.autograd.grad(bits, z, retain_graph=True)
    p = counts / counts.sum()
    by_hand = -sum(assignments[..., j].mean() * torch.log2(p[j]) for j in range(3))
    [wanted] = torch.autograd.grad(by_hand, z)
    torch.testing.assert_close(found, wanted)


def test_an_unused_center_costs_a_finite_price() -> None:
    assignments = torch.softmax(torch.randn(50, 3), -1).requires_grad_()
    bits = rate(assignments, torch.tensor([40, 10, 0]))
    [gradient] = torch.autograd.grad(bits, assignments)
    assert torch.isfinite(gradient).all()
    assert float(gradient[0, 2]) == pytest.approx(np.log2(50) / 50, rel=1e-5)


def test_two_processes_have_the_gradient_of_their_common_batch() -> None:
    """The mean of their gradients, with the histogram of both."""
    z = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def assigned(part: torch.Tensor) -> torch.Tensor:
        return torch.softmax(-((part.unsqueeze(-1) - torch.tensor([-1.0, 0.5])) ** 2), -1)

    counts = symbol_counts(assigned(z).argmax(-1), 2)
    [whole] = torch.autograd.grad(rate(assigned(z), counts), z)
    [halves] = torch.autograd.grad((rate(assigned(z[:4]), counts) + rate(assigned(z[4:]), counts)) / 2, z)
    torch.testing.assert_close(whole, halves)


def test_below_the_target_the_rate_is_free() -> None:
    bits = torch.tensor([1.0, 2.5], requires_grad=True)
    over = excess(bits, 2.0)
    assert over.tolist() == [0.0, 0.5]
    over.sum().backward()
    assert bits.grad is not None and bits.grad.tolist() == [0.0, 1.0]


def test_ignored_pixels_count_nowhere() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    mask = torch.randint(3, (2, 4, 5), generator=generator)
    mask[0, :2] = 255
    torch.testing.assert_close(pixel_cross_entropy(logits, mask), cross_entropy(logits, mask, ignore_index=255))
    assert float(pixel_cross_entropy(logits, torch.full_like(mask, 255))) == 0


def test_missed_labels() -> None:
    logits = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]])
    assert missed(logits, torch.tensor([2, 0])).tolist() == [100, 0]
    assert missed(logits, torch.tensor([2, 2]), 2).tolist() == [0, 100]
    assert missed(logits, torch.tensor([2, 2]), 5).tolist() == [0, 0], "there are only three"
    errors = TopErrors()
    seven = torch.arange(7.0).repeat(4, 1)
    named = errors.update(seven, torch.tensor([6, 5, 2, 1]))
    assert float(named["error"].compute()) == 75 and float(named["top5_error"].compute()) == 25


def test_bits_per_pixel_of_a_whole_set() -> None:
    metric, random = BitsPerPixel(4), np.random.default_rng(0)
    batches = [torch.from_numpy(random.integers(0, high, (2, 3, 2, 5))) for high in (2, 4)]
    for symbols in batches:
        metric.update(symbols, 2 * 16 * 33)
    counts = np.bincount(torch.cat(batches).flatten(), minlength=4)
    expected = entropy(counts, base=2) * 120 / (4 * 16 * 33)
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("absent", [False, True])
def test_miou_of_the_classes_there_are(absent: bool) -> None:
    random = np.random.default_rng(0)
    metric = MeanIoU(5)
    truth, found = (random.integers(0, 4 if absent else 5, (2, 3, 6, 7)) for _ in range(2))
    truth[0, 0, :3] = 255
    for t, f in zip(truth, found, strict=True):
        metric.update(torch.from_numpy(f), torch.from_numpy(t))
    kept = truth != 255
    expected = 100 * jaccard_score(truth[kept], found[kept], average="macro")
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-6)
    lost = MeanIoU(3)
    lost.update(torch.tensor([[[0, 2]]]), torch.tensor([[[0, 0]]]))  # a class that only predictions have counts
    assert float(lost.compute()) == pytest.approx(25.0)


def test_figures_of_a_codec() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (2, 3, 176, 184), generator=generator).float()
    x_hat = (x + 4 * torch.randn(x.shape, generator=generator)).round().clamp(0, 255)
    mse = (x_hat - x).square().mean((1, 2, 3))
    torch.testing.assert_close(psnr_db(x_hat, x), 10 * torch.log10(255**2 / mse))
    assert psnr_db(x, x).tolist() == [100, 100]
    figures, symbols = CodecFigures(3), torch.randint(3, (2, 4, 22, 23), generator=generator)
    logged = figures.update(x, x_hat, symbols)
    reference = MultiScaleStructuralSimilarityIndexMeasure(data_range=255.0)
    assert float(logged["ms_ssim"].compute()) == pytest.approx(float(reference(x_hat, x)), abs=1e-6)
    assert float(logged["psnr_db"].compute()) == pytest.approx(float(psnr_db(x_hat, x).mean()), rel=1e-6)
    bits = entropy(np.bincount(symbols.flatten()), base=2) * 4 * 22 * 23 / (176 * 184)
    assert float(logged["bpp"].compute()) == pytest.approx(bits, rel=1e-5)
    small = x[..., :175, :]
    assert set(CodecFigures(3).update(small, small, symbols)) == {"bpp", "psnr_db"}
    assert to_8_bits(torch.tensor([-3.0, 1.6, 254.4, 300.0])).tolist() == [0, 2, 254, 255]
