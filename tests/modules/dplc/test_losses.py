"""The terms against double loops and autograd by hand, in float64 where that helps."""

import pytest
import torch
from torch import nn

from modules.dplc.adversary import Adversary
from modules.dplc.losses import gradient_penalty, mmd, rate_weight, rmse, scaled, to_bytes


def kernel(a: torch.Tensor, b: torch.Tensor, variance: float) -> float:
    total = 0.0
    for s in (0.1, 0.2, 0.5, 1, 2, 5, 10):
        c = 2 * len(a) * variance * s
        total += c / (c + float(((a - b) ** 2).sum()))
    return total


@pytest.mark.parametrize("variance", [1.0, 2.5])
def test_mmd_against_a_double_loop(variance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    n = 7
    q = torch.randn(n, 5, generator=generator, dtype=torch.float64) * 2 + 1
    z = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    expected = 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                expected += (kernel(z[i], z[j], variance) + kernel(q[i], q[j], variance)) / (n * (n - 1))
            expected -= 2 * kernel(q[i], z[j], variance) / n**2
    assert mmd(q, z, variance).item() == pytest.approx(expected, rel=1e-5)


def test_mmd_of_equal_distributions_is_about_zero_and_else_positive() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 400, 8, generator=generator)
    assert abs(mmd(a, b)) < 0.02
    assert mmd(a + 1, b) > 0.1 and mmd(2 * a, b) > 0.1 and mmd(a / 2, b) > 0.05
    points = (3 * a).requires_grad_(True)
    mmd(points, b).backward()
    assert (points.grad * points).sum() > 0  # descent pulls too wide a sample inwards
    with pytest.raises(ValueError, match="two rows or more, not 1"):
        mmd(a[:1], b[:1])


def test_mmd_in_half_precision_is_computed_in_single() -> None:
    a, b = torch.randn(2, 32, 8, generator=torch.Generator().manual_seed(2)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert mmd(a, b).item() == pytest.approx(mmd(a.float(), b.float()).item(), abs=1e-6)
        assert mmd(a, b).dtype == torch.float32


def quadratic(weights: torch.Tensor) -> nn.Module:
    """f(x) = sum w x^2 of each image, whose gradient is 2 w x."""

    class Quadratic(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (weights * x**2).sum((1, 2, 3))

    return Quadratic()


@pytest.mark.parametrize("per", ["pixel", "image"])
def test_gradient_penalty_by_hand(per: str) -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake, weights = torch.randn(3, 4, 3, 5, 6, generator=generator, dtype=torch.float64)
    weights = weights[0].requires_grad_(True)
    alpha = torch.rand(4, 1, 1, 1, generator=generator, dtype=torch.float64)
    penalty = gradient_penalty(quadratic(weights), real, fake, alpha, per)  # type: ignore[arg-type]

    squares = (2 * weights * (alpha * real + (1 - alpha) * fake)) ** 2
    total, count = 0, 0
    for image in squares:
        if per == "image":
            total, count = total + (image.sum() ** 0.5 - 1) ** 2, count + 1
            continue
        for row in range(5):
            for column in range(6):
                norm = image[:, row, column].sum() ** 0.5
                total, count = total + (norm - 1) ** 2, count + 1
    expected = total / count
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-10)
    ours, theirs = (torch.autograd.grad(value, weights)[0] for value in (penalty, expected))
    assert torch.allclose(ours, theirs, rtol=1e-8)


def test_gradient_penalty_where_the_gradient_is_zero() -> None:
    weights = torch.ones(3, 2, 2, requires_grad=True)
    zeros = torch.zeros(2, 3, 2, 2)
    penalty = gradient_penalty(quadratic(weights), zeros, zeros, torch.ones(2, 1, 1, 1), "pixel")
    assert penalty.item() == pytest.approx(1, abs=1e-4)
    assert torch.autograd.grad(penalty, weights)[0].isfinite().all()


def test_rmse_is_a_root_of_one_mean() -> None:
    x = torch.zeros(2, 3, 4, 4)
    x_hat = torch.stack([torch.full((3, 4, 4), 1.0), torch.full((3, 4, 4), 3.0)])
    assert rmse(x_hat, x).item() == pytest.approx(5**0.5)
    assert rmse(x_hat.bfloat16(), x).dtype == torch.float32
    same = x.clone().requires_grad_(True)
    rmse(same, x).backward()
    assert same.grad.isfinite().all()


def test_scales_of_pixels() -> None:
    image = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    x = scaled(image)
    assert x.min() == -1 and x.max() == 1 and x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(to_bytes(x), image)
    assert to_bytes(torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.5])).tolist() == [0, 0, 128, 255, 255]


def test_weights_of_the_rates() -> None:
    assert [round(rate_weight(c)) for c in (2, 8, 32, 128)] == [635, 300, 173, 129]
    assert rate_weight(4) == pytest.approx((635 * 300) ** 0.5, rel=1e-4)
    assert rate_weight(1) > 635 and 129 < rate_weight(64) < 173


@pytest.mark.parametrize("per", ["pixel", "image"])
def test_the_critics_loss_is_float32_under_autocast(per: str) -> None:
    torch.manual_seed(0)
    adversary = Adversary(width=2, penalty=per, weight=0.5)  # type: ignore[arg-type]
    real, fake = torch.randn(2, 3, 3, 64, 64)
    alpha = torch.rand(3, 1, 1, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distance, penalty = adversary.critic_terms(real, fake.bfloat16(), alpha)
        loss = adversary.generator_loss(fake.bfloat16())
    rounded = fake.bfloat16().float()
    assert distance.item() == pytest.approx((adversary.critic(real).mean() - adversary.critic(rounded).mean()).item())
    expected = gradient_penalty(adversary.critic, real, rounded, alpha, per)  # type: ignore[arg-type]
    assert penalty.item() == pytest.approx(expected.item()) and penalty.dtype == torch.float32
    assert loss.item() == pytest.approx(-0.5 * adversary.critic(rounded).mean().item())


def test_wrong_arguments_of_the_adversary() -> None:
    for options in ({"steps": 0}, {"chunks": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must be at least 1"):
            Adversary(width=1, **options)
    with pytest.raises(ValueError, match="penalty must be pixel or image, not 'batch'"):
        Adversary(width=1, penalty="batch")  # type: ignore[arg-type]
