"""Every term against its formula, and masks against brute force."""

import numpy as np
import pytest
import torch
from torchvision.models import vgg19

from modules.extreme_gan import losses
from modules.extreme_gan.masks import (
    cells_of,
    instance_edges,
    pixels_of,
    random_boxes,
    random_instances,
    scene_channels,
    scrambled,
)
from modules.extreme_gan.nets import Judgement


def judgements(seed: int) -> list[Judgement]:
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=g, dtype=torch.float64)  # noqa: E731
    return [Judgement([draw(2, 4, s, s) for _ in range(4)], draw(2, 1, s, s)) for s in (5, 3)]


def test_adversarial_terms() -> None:
    real, fake = judgements(0), judgements(1)
    r, f = ([j.scores.numpy() for j in js] for js in (real, fake))
    expected = 0.5 * sum(np.mean((a - 1) ** 2) + np.mean(b**2) for a, b in zip(r, f, strict=True))
    assert losses.discriminator_loss(real, fake).item() == pytest.approx(expected)
    assert losses.adversarial_loss(fake).item() == pytest.approx(sum(np.mean((b - 1) ** 2) for b in f))


def test_feature_matching() -> None:
    real, fake = judgements(0), judgements(1)
    for j in (*real, *fake):
        for feature in j.features:
            feature.requires_grad_(True)
    expected = sum(
        0.5 * (4 / 4) * np.abs(a.detach().numpy() - b.detach().numpy()).mean()
        for r, f in zip(real, fake, strict=True)
        for a, b in zip(r.features, f.features, strict=True)
    )
    loss = losses.feature_matching_loss(real, fake)
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert real[0].features[0].grad is None and fake[1].features[3].grad is not None


def test_distortion_is_over_what_is_kept() -> None:
    x_hat, x = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    assert losses.distortion(x_hat, x).item() == pytest.approx(((x_hat - x) ** 2).mean().item())
    keep = torch.zeros(2, 1, 8, 8)
    keep[0, 0, 2:5, 1:] = 1
    expected = ((x_hat - x)[0, :, 2:5, 1:] ** 2).mean().item()
    assert losses.distortion(x_hat, x, keep).item() == pytest.approx(expected, rel=1e-5)
    assert losses.distortion(x_hat, x, torch.zeros_like(keep)).item() == 0


def test_vgg_term_and_where_its_weights_come_from(tmp_path, monkeypatch) -> None:
    torch.manual_seed(0)
    network = vgg19(weights=None)
    path = tmp_path / "vgg.pth"
    torch.save(network.state_dict(), path)
    loss = losses.load_vgg_loss(path)
    x_hat, x = (torch.randn(1, 3, 32, 32).requires_grad_(True) for _ in range(2))
    expected = 0.0
    for coefficient, end in zip((1 / 32, 1 / 16, 1 / 8, 1 / 4, 1), (2, 7, 12, 21, 30), strict=True):
        expected += coefficient * (network.features[:end](x_hat) - network.features[:end](x)).abs().mean().item()
    value = loss(x_hat, x)
    assert value.item() == pytest.approx(expected, rel=1e-4)
    value.backward()
    assert x_hat.grad is not None and x.grad is None and not any(p.requires_grad for p in loss.parameters())
    assert losses.load_vgg_loss(tmp_path / "none.pth") is None
    path.write_bytes(b"rubbish")
    with pytest.raises(ValueError, match="does not hold torchvision's weights"):
        losses.load_vgg_loss(path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    assert losses.vgg_weights_file(None) == tmp_path / "hub/checkpoints/vgg19-dcbb9e9d.pth"
    assert losses.vgg_weights_file("a/b.pth").as_posix() == "a/b.pth"


def test_labels_and_edges() -> None:
    rng = np.random.default_rng(0)
    mask = torch.from_numpy(rng.integers(0, 4, (2, 6, 7)))
    mask[0, 0, 0] = 255
    instance = torch.from_numpy(rng.integers(0, 2, (2, 6, 7)))
    channels = scene_channels(mask, instance, 3)
    assert channels.shape == (2, 4, 6, 7) and channels.dtype == torch.float32
    for n in range(2):
        for i in range(6):
            for j in range(7):
                around = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
                other = any(0 <= a < 6 and 0 <= b < 7 and instance[n, a, b] != instance[n, i, j] for a, b in around)
                assert instance_edges(instance)[n, i, j] == other == bool(channels[n, 3, i, j])
                assert channels[n, :3, i, j].tolist() == [float(mask[n, i, j] == k) for k in range(3)]


def test_cells_and_pixels() -> None:
    pixels = torch.zeros(1, 16, 24, dtype=torch.bool)
    pixels[0, 7, 8] = pixels[0, 15, 23] = True
    cells = cells_of(pixels, 8)
    assert cells[0, 0].tolist() == [[0, 1, 0], [0, 0, 1]]
    back = pixels_of(cells, 8)
    assert back.shape == (1, 1, 16, 24) and back.sum() == 128 and back[0, 0, 0:8, 8:16].all()


def hashed(number: int, seed: int) -> int:
    x = number ^ seed * 2654435761 % 2**32
    for multiplier in (2146121005, 2221713035):
        x = (x ^ x // 65536) * multiplier % 2**32
    return x ^ x // 32768


def test_numbers_are_scrambled_in_exact_integers() -> None:
    """Against Python's own integers; and what comes out is spread evenly, other for other seeds."""
    numbers = torch.tensor([0, 1, 2, 65535, 65536, 2**31, 2**32 - 1])
    for seed in (0, 1, 2**32 - 1):
        assert scrambled(numbers, seed).tolist() == [hashed(number, seed) for number in numbers.tolist()]
    drawn = [scrambled(torch.arange(1 << 16), seed).double() / 2**32 for seed in (3, 4)]
    for values in drawn:
        assert values.min() >= 0 and values.max() < 1
        assert torch.histc(values, 16, 0, 1).sub(4096).abs().max() < 300
    assert abs(torch.corrcoef(torch.stack(drawn))[0, 1]) < 0.02
    assert abs(torch.corrcoef(torch.stack([drawn[0][1:], drawn[0][:-1]]))[0, 1]) < 0.02


def test_a_quarter_of_the_instances_is_kept() -> None:
    instance = torch.arange(10).repeat_interleave(4).view(1, 4, 10).repeat(3, 1, 1)
    instance[1] %= 2
    instance[2] = 65535
    shares = torch.zeros(10)
    for seed in range(200):
        keep = random_instances(instance, seed)
        kept = [set(instance[n][keep[n]].tolist()) for n in range(3)]
        assert [len(ids) for ids in kept] == [3, 1, 1]  # a quarter, rounded up
        assert all(not (set(instance[n][~keep[n]].tolist()) & kept[n]) for n in range(3))
        shares[list(kept[0])] += 1 / 200
    assert (shares - 0.3).abs().max() < 0.12
    assert torch.equal(keep, random_instances(instance, seed))


def test_boxes_have_the_sides_of_the_law() -> None:
    keep = random_boxes(400, 32, 64, 0)
    sizes, corners = [], []
    for box in keep.numpy():
        rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
        assert box.sum() == len(rows) * len(columns) == np.ptp(rows) * 0 + (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        sizes.append((len(rows), len(columns)))
        corners.append((rows[0], rows[-1], columns[0], columns[-1]))
    low, high = np.min(sizes, 0), np.max(sizes, 0)
    assert low.tolist() == [4, 8] and high.tolist() == [16, 32]
    assert np.min(corners, 0)[[0, 2]].tolist() == [0, 0] and np.max(corners, 0)[[1, 3]].tolist() == [31, 63]
    assert np.abs(np.mean(sizes, 0) - [10, 20]).max() < 1  # uniform
    assert np.abs(np.mean(corners, 0) - [11, 20.5, 22, 41.5]).max() < 2
    assert random_boxes(1, 2, 2, 0).sum() >= 1
    assert torch.equal(keep, random_boxes(400, 32, 64, 0)) and not torch.equal(keep, random_boxes(400, 32, 64, 1))
