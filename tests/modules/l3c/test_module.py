"""The LightningModule through the command line, on the embedded photographs, with a network that is narrow."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modules.l3c.module import L3C
from modules.l3c.nets import L3CNet, RGBSharedNet
from modules.l3c.sampling import sample_images, sample_mixture
from tests.lossless_training import Quickstart, check_report_and_files, check_resume, logged, no_report, small_photos  # noqa: F401
from train import main

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "configs" / "l3c"
NARROW = [
    "--model.init_args.network.init_args.channels=8",
    "--model.init_args.network.init_args.num_blocks=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_model_summary=false",
    "--trainer.log_every_n_steps=1",
    "--seed_everything=7",
]


def run(command: str, *options: str) -> None:
    main([command, *options, *NARROW])


QUICKSTART = Quickstart("l3c", ".l3c", ("--data.init_args.crop_size=32", *NARROW[:2]))


@pytest.mark.usefixtures("small_photos")
def test_quickstart_reports_and_its_checkpoint_compresses(capsys):
    check_report_and_files(QUICKSTART, capsys)


@pytest.mark.usefixtures("no_report", "small_photos")
def test_ten_steps_equal_five_and_five_more():
    check_resume(QUICKSTART)


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("overlay", [None, "overlays/rgb.yaml", "overlays/rgb_shared.yaml"])
def test_published_recipe_trains_a_step_on_a_folder_of_photos(overlay, tmp_path):
    for split in ("train", "validation"):
        (tmp_path / "data" / "open_images" / split).mkdir(parents=True)
        for i in range(2):
            pixels = np.random.default_rng(i).integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / "open_images" / split / f"{i}.png")
    overlays = ["--config", str(CONFIGS / overlay)] if overlay else []
    options = ["--data.init_args.crop_size=32", "--data.init_args.batch_size=2", "--data.init_args.num_workers=0"]
    limits = ["--trainer.max_epochs=1", "--trainer.val_check_interval=1.0"]
    run("fit", "--config", str(CONFIGS / "open_images.yaml"), *overlays, *options, *limits)
    folder = next(Path("runs/l3c").glob("*/000"))
    assert len(logged(folder, "val/bpsp")) == 1


GOLDEN_LOSSES = [10.7279, 10.7438, 10.6014, 11.0161, 10.6712]


@pytest.mark.usefixtures("no_report")
def test_golden_loss_curve():
    """Rewritten only with a reason: the first steps of the quickstart at seed 7, narrow, in float32.

    The fifth value changed when the warm-up of a cycle became two steps long at least, of these five steps.
    """
    run("fit", "--config", str(CONFIGS / "quickstart.yaml"), "--trainer.max_steps=5", "--trainer.precision=32-true")
    assert logged(Path("runs/l3c/quickstart/000"), "train/bpsp") == pytest.approx(GOLDEN_LOSSES, rel=2e-3)


def test_samples_are_images_and_follow_the_coded_scales():
    torch.manual_seed(0)
    network = L3CNet(8, 1).eval()
    x = torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8)
    samples = sample_images(network, x, torch.Generator().manual_seed(0))
    assert samples.shape == (3, 2, 3, 16, 24) and samples.dtype == torch.uint8
    assert torch.equal(samples, sample_images(network, x, torch.Generator().manual_seed(0)))
    assert len(sample_images(RGBSharedNet(8, 1).eval(), x[..., :16])) == 4


def test_samples_have_the_frequencies_of_the_mixture():
    network = L3CNet(8, 1)
    alphabet = network.alphabets[1]
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(1, alphabet.num_parameters(10), 1, 1, generator=generator)
    symbols = sample_mixture(one.expand(-1, -1, 200, 200), alphabet, 10, generator)
    from modules.l3c.losses import mixture_log_likelihood

    for symbol in (0, 10, 24):
        value = torch.full((1, 5, 1, 1), alphabet.low + alphabet.step * symbol, dtype=torch.float64)
        expected = mixture_log_likelihood(one.double(), value, alphabet, 10).exp().flatten()
        observed = (symbols == symbol).double().mean((0, 2, 3))
        assert torch.allclose(observed, expected, atol=4 * 0.5 / 200)


@pytest.mark.usefixtures("no_report")
def test_module_loads_from_its_checkpoint():
    run("fit", "--config", str(CONFIGS / "quickstart.yaml"), "--trainer.max_steps=1", "--trainer.limit_val_batches=1")
    module = L3C.load_from_checkpoint("runs/l3c/quickstart/000/checkpoints/last.ckpt")
    assert module.network.num_scales == 3


def test_a_test_runs_the_network_on_tiles_only():
    module = L3C(L3CNet(8, 1), write_files=False)
    module.log = lambda *_: None  # type: ignore[method-assign]
    sides = []
    module.network.register_forward_pre_hook(lambda _, inputs: sides.append(max(inputs[0].shape[-2:])))
    with torch.no_grad():
        module.test_step({"image": torch.randint(0, 256, (1, 3, 9, 1600), dtype=torch.uint8)}, 0)
    assert len(sides) == 3 and max(sides) <= 768
    assert 5 < module.test_bpsp.compute() < 100
