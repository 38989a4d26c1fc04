"""Stage 1: its three objectives, its statistics, its samples; and every config on one batch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from modules.dplc.adversary import Adversary
from modules.dplc.losses import mmd, rmse, scaled
from modules.dplc.statistics import reestimate
from tests.modules.dplc.small import LATENT, Noise64, generative, saved_generator, trainer
from train import main

CONFIGS = Path(__file__).parents[3] / "configs" / "dplc"
PLAIN = ["--trainer.accelerator=cpu", "--trainer.enable_model_summary=false"]
NARROW = [
    "--model.init_args.network.init_args.width=2",
    f"--model.init_args.network.init_args.latent={LATENT}",
    "--model.init_args.features.init_args.width=2",
]
TINY = ["--data.init_args.classes=null", "--trainer.check_val_every_n_epoch=1"]
CRITIC = "--model.init_args.adversary.init_args"


def quiet(module: Any) -> Any:
    module.log = module.log_dict = lambda *_, **__: None
    return module


def test_wasserstein_without_gradient_from_the_critic_to_the_encoder() -> None:
    x = torch.rand(4, 3, 64, 64) * 2 - 1
    adversary = Adversary(2, weight=3.0)
    module = quiet(generative(True, adversary, mmd_weight=5.0)).train()
    torch.manual_seed(1)
    loss = module.generator_loss(x)
    torch.manual_seed(1)
    prior = module.network.generator.draw_latents(4)
    q = module.network.encoder(x)
    wae = rmse(module.network.generator(q), x) + 5 * mmd(q.flatten(1), prior.flatten(1))
    fake = module.network.generator(q.detach())
    assert loss.item() == pytest.approx((wae - 3 * adversary(fake).mean()).item(), rel=1e-5)
    first = module.network.encoder[0].weight
    ours, theirs = (torch.autograd.grad(value, first, retain_graph=True)[0] for value in (loss, wae))
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-7)
    last = module.network.generator[15].weight
    ours, theirs = (torch.autograd.grad(value, last, retain_graph=True)[0] for value in (loss, wae))
    assert not torch.allclose(ours, theirs, rtol=1e-4)


def test_objectives_with_one_of_the_two() -> None:
    x = torch.rand(4, 3, 64, 64) * 2 - 1
    gan = quiet(generative(False, Adversary(2, weight=2.0))).train()
    torch.manual_seed(1)
    loss = gan.generator_loss(x)
    torch.manual_seed(1)
    fake = gan.network.generator(gan.network.generator.draw_latents(4))
    assert loss.item() == pytest.approx(-2 * gan.adversary(fake).mean().item(), rel=1e-5)
    wae = quiet(generative(True)).train()
    assert wae.mmd_weight == 100
    torch.manual_seed(1)
    loss = wae.generator_loss(x)
    torch.manual_seed(1)
    prior, q = wae.network.generator.draw_latents(4), wae.network.encoder(x)
    expected = rmse(wae.network.generator(q), x) + 100 * mmd(q.flatten(1), prior.flatten(1))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(ValueError, match="nothing would train the generator"):
        generative(False)


def test_fakes_lie_between_the_code_and_the_prior() -> None:
    module = generative(True, Adversary(2)).train()
    seen = []
    module.network.generator.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    x = torch.rand(4, 3, 64, 64)
    torch.manual_seed(1)
    module.fakes(x)
    torch.manual_seed(1)
    prior = module.network.generator.draw_latents(4)
    alpha = torch.rand(4, 1, 1, 1)
    expected = alpha * module.network.encoder(x) + (1 - alpha) * prior
    assert torch.allclose(seen[0], expected, atol=1e-5)
    alone = generative(False, Adversary(2)).train()
    torch.manual_seed(1)
    fakes = alone.fakes(x)
    torch.manual_seed(1)
    assert torch.equal(fakes, alone.network.generator(alone.network.generator.draw_latents(4)))


def test_validation_measures_both_networks(tmp_path: Path) -> None:
    module, data = generative(True), Noise64()
    run = trainer(tmp_path)
    run.fit(module, datamodule=data)
    network = module.network.eval()
    with torch.no_grad():
        z = torch.randn(4000, LATENT, 1, 1)
        assert torch.allclose(network.generator[1].running_var, network.generator[0](z).var((0, 2, 3)), rtol=0.1)
        x = scaled(torch.cat([batch["image"] for batch in data.train_dataloader()]))
        inner = torch.nn.Sequential(*list(network.encoder)[:3])(x)
        assert torch.allclose(network.encoder[3].running_mean, inner.mean((0, 2, 3)), atol=1e-3)
        errors = [
            (network.generator(network.encoder(scaled(b["image"]))) - scaled(b["image"])).square().mean((1, 2, 3))
            for b in data.val_dataloader()
        ]
    assert float(run.callback_metrics["val/mse"]) == pytest.approx(float(torch.cat(errors).mean()), rel=1e-4)


def test_loaders_without_a_datamodule(tmp_path: Path) -> None:
    data = Noise64()
    with pytest.raises(ValueError, match="give fit a datamodule"):
        trainer(tmp_path).fit(generative(True), data.train_dataloader(), data.val_dataloader())


@pytest.mark.parametrize("encoder", [True, False])
def test_what_a_test_reports(encoder: bool, tmp_path: Path) -> None:
    module = generative(encoder, Adversary(2))
    results = trainer(tmp_path).test(module, datamodule=Noise64(), verbose=False)[0]
    expected = {"test/sample_images", "test/sample_frechet_random16", "test/sample_diversity"}
    assert expected <= results.keys() and ("test/mse" in results) == encoder
    assert results["test/sample_images"] == 12
    assert results == pytest.approx(trainer(tmp_path).test(module, datamodule=Noise64(), verbose=False)[0], nan_ok=True)
    if encoder:
        network = module.network.eval()
        x = torch.cat([scaled(batch["image"]) for batch in Noise64().val_dataloader()])
        with torch.no_grad():
            error = float((network.generator(network.encoder(x)) - x).square().mean())
        assert results["test/mse"] == pytest.approx(error, rel=1e-3)


def test_draws_for_reports() -> None:
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    for encoder in (True, False):
        module = generative(encoder, Adversary(2)).eval()
        generator = module.network.generator
        reestimate(generator, generator, [torch.randn(8, LATENT, 1, 1)])
        generator[15].weight.data *= 10
        with torch.no_grad():
            drawn = module.draws(images, 3)
            assert drawn.shape == (3, 2, 3, 64, 64) and drawn.dtype == torch.uint8
            assert not torch.equal(drawn[1], drawn[2])
            assert torch.equal(module.sample(2, 4), module.sample(2, 4))


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight training images and four for evaluation, in the layouts of an image folder and of CelebA."""
    random = np.random.default_rng(0)
    align = tmp_path / "celeba" / "img_align_celeba"
    align.mkdir(parents=True)
    lines = []
    for number in range(16):
        pixels = Image.fromarray(random.integers(0, 256, (80, 66, 3), np.uint8))
        pixels.save(align / f"{number:06d}.jpg")
        part = 0 if number < 8 else 1 + number % 2
        lines.append(f"{number:06d}.jpg {part}\n")
        folder = tmp_path / "tiny_imagenet" / ("train" if part == 0 else "val") / "n01"
        folder.mkdir(parents=True, exist_ok=True)
        pixels.save(folder / f"{number}.JPEG")
    (align.parent / "list_eval_partition.txt").write_text("".join(lines))
    monkeypatch.setenv("PARSIMONY_DATA", str(tmp_path))
    return tmp_path


def fit(name: str, *options: str) -> None:
    main(["fit", "--config", str(CONFIGS / f"{name}.yaml"), *PLAIN, *NARROW, "--data.init_args.batch_size=4", *options])


def test_the_small_experiment(images: Path) -> None:
    """Stage 1 through the command line, stage 2 on its checkpoint, a test of both, and their pictures."""
    fit("tiny_wasserstein", *TINY, "--trainer.max_epochs=2", f"{CRITIC}.width=2", "--run.dir=one")
    narrow = [*PLAIN, *NARROW, "--data.init_args.classes=null"]
    where = ["--config", str(CONFIGS / "tiny_wasserstein.yaml"), *narrow, f"{CRITIC}.width=2", "--run.dir=one"]
    main(["test", *where, "--ckpt_path=last"])
    weights = "--model.init_args.generator_weights=one/000/checkpoints/last.ckpt"
    fit("tiny_code", *TINY, "--trainer.max_epochs=1", weights, "--run.dir=two")
    where = ["--config", str(CONFIGS / "tiny_code.yaml"), *narrow, "--run.dir=two"]
    main(["test", *where, "--ckpt_path=last", "--model.init_args.variance_draws=3"])
    for run in ("one", "two"):
        folder = Path(run, "000")
        assert {"val/mse"} <= json.loads((folder / "result.json").read_text())["fit"]["metrics"].keys()
        assert Image.open(folder / "draws.test.png").size == (7 * 64, 8 * 64)
        assert (folder / "draws.fit.png").is_file()
    assert json.loads(Path("two/000/result.json").read_text())["test"]["metrics"]["test/pixel_variance"] > 0


OVERLAYS = ["cae", "gc", "batch_statistics"]


@pytest.mark.parametrize("name", ["celeba_wgan_gp", "celeba_wae", "celeba_wasserstein", "celeba_code", *OVERLAYS])
def test_one_batch_of_the_papers_recipes(name: str, images: Path, tmp_path: Path) -> None:
    options = ["--trainer.fast_dev_run=1"]
    if name in ("celeba_wgan_gp", "celeba_wasserstein"):
        options.append(f"{CRITIC}.width=2")
    weights = ["--model.init_args.generator_weights", saved_generator(tmp_path / "g.ckpt")]
    if name in OVERLAYS:
        options += ["--config", str(CONFIGS / "overlays" / f"{name}.yaml")]
        options += weights if name == "batch_statistics" else []
        options += [f"{CRITIC}.width=2"] if name == "gc" else []
    elif name == "celeba_code":
        options += weights
    fit("celeba_code" if name in OVERLAYS else name, *options)


def test_the_textbook_penalty_and_lsun_are_overlays(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    penalty, lsun = (str(CONFIGS / "overlays" / f"{name}.yaml") for name in ("penalty_per_image", "lsun"))
    fit("celeba_wasserstein", "--trainer.fast_dev_run=1", f"{CRITIC}.width=2", "--config", penalty)
    with pytest.raises(SystemExit):
        fit("celeba_wasserstein", "--config", lsun, "--print_config")
    printed = capsys.readouterr().out
    assert "datamodules.thumbnails.LSUNBedroom" in printed and "max_epochs: 9" in printed
