"""Stage 2: the frozen generator, the baselines, statistics of batch norms, and what a test reports."""

from pathlib import Path
from typing import Any

import pytest
import torch

from modules.components.checkpoint_file import CheckpointError
from modules.dplc.adversary import Adversary
from modules.dplc.compressor import Compressor, load_generator
from modules.dplc.losses import mmd, rmse, scaled, to_bytes
from modules.dplc.nets import Generator
from modules.dplc.statistics import reestimate
from tests.modules.dplc.small import LATENT, Noise64, compressor, equal, saved_generator, state_of, trainer


def parameters(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


@pytest.fixture
def weights(tmp_path: Path) -> str:
    return saved_generator(tmp_path / "stage1.ckpt")


def quiet(module: Any) -> Any:
    """Without a trainer nothing can be logged."""
    module.log = module.log_dict = lambda *_, **__: None
    return module


def test_the_frozen_generator_stays_and_the_others_learn(weights: str, tmp_path: Path) -> None:
    module = compressor(generator_weights=weights)
    run = trainer(tmp_path)
    before = parameters(module.network)
    run.fit(module, datamodule=Noise64())
    after, stage1 = parameters(module.network), torch.load(weights)["state_dict"]
    for name, value in after.items():
        start = stage1[f"network.{name}"] if name.startswith("generator.") else before[name]
        assert torch.equal(value, start) == name.startswith("generator."), name
    held = {id(p) for group in run.optimizers[0].param_groups for p in group["params"]}
    assert held == {id(p) for part in (module.network.encoder, module.network.map) for p in part.parameters()}


def test_gradients_of_the_map_are_those_through_the_generator(weights: str) -> None:
    """The distortion's gradient at B's last layer, with and without the generator's own gradients."""
    module = quiet(compressor(generator_weights=weights, mmd_weight=0.0)).train()
    load_generator(module.network.generator, weights)
    x = torch.rand(4, 3, 64, 64) * 2 - 1
    torch.manual_seed(1)
    module.generator_loss(x).backward()
    last = module.network.map[-1].weight
    ours = last.grad.clone()
    assert ours.abs().max() > 0
    last.grad = None
    module.network.generator.requires_grad_(True)
    torch.manual_seed(1)
    rmse(module.network(x, module.network.draw_noise(4)).x_hat, x).backward()
    assert torch.equal(ours, last.grad)


@pytest.mark.parametrize("mode", ["running", "batch"])
def test_statistics_of_the_frozen_generator(mode: str, weights: str, tmp_path: Path) -> None:
    module = compressor(generator_weights=weights, statistics=mode)
    norm = module.network.generator[1]
    seen = []
    norm.register_forward_hook(lambda *_: seen.append(norm.training))
    trainer(tmp_path, limit_val_batches=0).fit(module, datamodule=Noise64())
    module.train()
    assert norm.training == (mode == "batch") and module.network.map[-1].training
    module.eval()
    assert not norm.training
    assert any(seen[-8:]) == (mode == "batch")


def test_the_generator_is_measured_under_the_prior(weights: str) -> None:
    generator = Generator(2, LATENT)
    load_generator(generator, weights)
    z = torch.randn(4000, LATENT, 1, 1)
    with torch.no_grad():
        x = generator[0](z)
    assert torch.allclose(generator[1].running_mean, x.mean((0, 2, 3)), atol=2e-3)
    assert torch.allclose(generator[1].running_var, x.var((0, 2, 3)), rtol=0.1)


def test_validation_measures_what_was_trained(weights: str, tmp_path: Path) -> None:
    """One image alone comes out as among the training images, once more than rounding apart from the first batch."""
    module = compressor(generator_weights=weights)
    data = Noise64()
    trainer(tmp_path).fit(module, datamodule=data)
    network = module.network.eval()
    x = scaled(torch.cat([b["image"] for b in data.train_dataloader()]))
    with torch.no_grad():
        inner = network.encoder.layers[2](x.new_tensor(0) + network.encoder.layers[:2](x))
    norm = network.encoder.layers[3]
    assert torch.allclose(norm.running_mean, inner.mean((0, 2, 3)), atol=1e-3)
    mean_of_generator = network.generator[1].running_mean.clone()
    load_generator(network.generator, weights)
    assert torch.allclose(mean_of_generator, network.generator[1].running_mean)


def test_batch_statistics_are_not_replaced(tmp_path: Path) -> None:
    module = compressor(mmd_weight=0.0, statistics="batch")
    run, seen = trainer(tmp_path), []
    module.network.map[-1].register_forward_hook(
        lambda norm, *_: seen.append((module.network.map.training, norm.training))
    )
    run.fit(module, datamodule=Noise64())
    assert set(seen) == {(True, True), (False, True)}
    seen.clear()
    run.test(module, datamodule=Noise64(), verbose=False)
    assert set(seen) == {(False, True)}
    module.on_test_start()
    z = module.network(torch.rand(5, 3, 64, 64), module.network.draw_noise(5)).z
    assert torch.allclose(z.mean((0, 2, 3)), module.network.map[-1].bias, atol=1e-5)


def test_terms_of_the_loss(weights: str) -> None:
    x = torch.rand(4, 3, 64, 64) * 2 - 1
    adversary = Adversary(2, weight=0.25)
    for options in ({"mmd_weight": 0.0}, {"mmd_weight": 7.0}, {"mmd_weight": 0.0, "adversary": adversary}):
        module = quiet(compressor(**options)).train()
        torch.manual_seed(2)
        loss = module.generator_loss(x)
        torch.manual_seed(2)
        coded = module.network(x, module.network.draw_noise(4))
        expected = rmse(coded.x_hat, x)
        if options["mmd_weight"]:
            prior = module.network.generator.draw_latents(4)
            expected = expected + 7 * mmd(coded.z.flatten(1), prior.flatten(1))
        if "adversary" in options:
            expected = expected - 0.25 * adversary(coded.x_hat).mean()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_rule_for_lambda_and_wrong_arguments(weights: str) -> None:
    assert compressor(8, mmd_weight=None).mmd_weight == pytest.approx(300, rel=1e-4)
    assert compressor(2, mmd_weight=None).mmd_weight == pytest.approx(635, rel=1e-4)
    with pytest.raises(ValueError, match="generator_weights or an adversary, not both"):
        compressor(generator_weights=weights, adversary=Adversary(1))
    with pytest.raises(ValueError, match="statistics must be running or batch, not 'both'"):
        compressor(statistics="both")


def test_generators_that_do_not_fit(tmp_path: Path) -> None:
    wide = saved_generator(tmp_path / "wide.ckpt", width=3)
    with pytest.raises(CheckpointError, match=r"wide\.ckpt does not fit: width and latent must be those of stage 1"):
        load_generator(Generator(2, LATENT), wide)
    torch.save({"state_dict": {"other": torch.zeros(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=r"other\.ckpt holds no generator"):
        load_generator(Generator(2, LATENT), str(tmp_path / "other.ckpt"))
    with pytest.raises(FileNotFoundError):
        load_generator(Generator(2, LATENT), str(tmp_path / "absent.ckpt"))


def results_of(module: Compressor, folder: Path, **options: Any) -> dict[str, float]:
    run = trainer(folder, **options)
    return {k: float(v) for k, v in run.test(module, datamodule=Noise64(), verbose=False)[0].items()}


def test_what_a_test_reports(tmp_path: Path) -> None:
    module = compressor()
    module.network.generator[15].weight.data *= 10  # outputs that are not all gray
    network, data = module.network, Noise64()
    reestimate(network, lambda x: network(x, network.draw_noise(8)), [torch.randn(8, 3, 64, 64)])
    results = results_of(module, tmp_path)
    network.eval()
    errors, codes, agreements = [], [], []
    with torch.no_grad():
        for i, batch in enumerate(data.val_dataloader()):
            x = scaled(batch["image"])
            coded = network(x, network.draw_noise(len(x), torch.Generator().manual_seed(i)))
            errors += (coded.x_hat - x).square().mean((1, 2, 3)).tolist()
            again = network.encoder(scaled(to_bytes(coded.x_hat))).symbols
            agreements += (again == coded.symbols).flatten(1).float().mean(1).tolist()
            codes.append(coded.symbols)
        many = [network.decode(torch.cat(codes)[:6], network.draw_noise(6)) for _ in range(400)]
    assert results["test/images"] == 12 and results["test/bpp"] == 3 / 256
    assert results["test/mse"] == pytest.approx(sum(errors) / 12, rel=1e-4)
    assert 0 < results["test/same_bits"] < 1
    assert results["test/same_bits"] == pytest.approx(sum(agreements) / 12, rel=1e-4)
    assert results["test/same_code"] == pytest.approx(sum(a == 1 for a in agreements) / 12)
    variance = float(torch.stack(many).var(0).mean())
    assert results["test/pixel_variance"] == pytest.approx(variance, rel=0.5)
    assert results["test/pixel_variance_unit"] == pytest.approx(results["test/pixel_variance"] / 4)
    assert {"test/frechet_random16", "test/frechet_random16_low", "test/kernel", "test/diversity"} <= results.keys()
    assert results_of(module, tmp_path) == pytest.approx(results, nan_ok=True)


def test_the_same_code_is_all_of_its_bits() -> None:
    module, logged = compressor(variance_images=0), {}
    module.log_dict = logged.update  # type: ignore[method-assign]
    module.evaluation.add(torch.zeros(4, 3, 64, 64), torch.zeros(4, 3, 64, 64))
    module.agreements = [torch.tensor([1.0, 0.75]), torch.tensor([0.4, 1.0])]
    module.on_test_epoch_end()
    assert logged["test/same_code"] == 0.5 and logged["test/same_bits"] == pytest.approx(0.7875)
    assert module.agreements == []


def test_the_autoencoder_does_not_vary(tmp_path: Path) -> None:
    assert results_of(compressor(noise=False), tmp_path)["test/pixel_variance"] == 0
    assert "test/pixel_variance" not in results_of(compressor(variance_images=0), tmp_path)
    assert results_of(compressor(), tmp_path)["test/pixel_variance"] > 0


def test_two_processes_test_every_image_once(tmp_path: Path) -> None:
    def numbers(**options: Any) -> dict[str, float]:
        run = trainer(tmp_path, **options)
        run.test(compressor(noise=False), datamodule=Noise64(), verbose=False)
        return {name: float(value) for name, value in run.callback_metrics.items()}

    one, two = numbers(), numbers(devices=2, strategy="ddp_fork")
    assert one["test/images"] == two["test/images"] == 12
    for name in ("test/mse", "test/frechet_random16", "test/same_bits"):
        assert one[name] == pytest.approx(two[name], rel=1e-4)


def test_variance_of_known_decoders() -> None:
    module = compressor(variance_draws=4)
    symbols = torch.arange(7).view(7, 1, 1, 1).expand(7, 3, 4, 4)
    first = (slice(None), slice(1), slice(1), slice(1))
    module.network.decode = lambda s, noise: (9 * s[first] + noise[first]).expand(-1, 3, 64, 64)  # type: ignore[method-assign]
    drawn = torch.Generator().manual_seed(0)
    noise = module.network.draw_noise(28, drawn)[:, 0, 0, 0].view(4, 7)
    assert torch.allclose(module.variance(symbols), noise.var(0, correction=0), atol=1e-4)


def test_draws_for_reports() -> None:
    module = compressor().eval()
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        drawn = module.draws(images, 3)
    assert drawn.shape == (3, 2, 3, 64, 64) and drawn.dtype == torch.uint8
    assert equal(state_of(module), state_of(compressor()))
