"""The LightningModule through the command line, on the embedded photographs, with a network that is narrow."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modules.l3c.module import L3C
from modules.l3c.nets import L3CNet, RGBSharedNet
from modules.l3c.sampling import sample_images, sample_mixture
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


def logged(folder: Path, column: str) -> list[float]:
    """Every value of a column, over all parts of a run."""
    values = []
    for file in sorted((folder / "csv").glob("version_*/metrics.csv")):
        values += [float(row[column]) for row in csv.DictReader(file.read_text().splitlines()) if row.get(column)]
    return values


def test_quickstart_trains_reports_and_its_checkpoint_compresses(capsys):
    run("fit", "--config", str(CONFIGS / "quickstart.yaml"), "--trainer.max_steps=8", "--trainer.val_check_interval=4")
    folder = Path("runs/l3c/quickstart/000")
    printed = capsys.readouterr().out
    assert "bpsp of files" in printed and "WebP" in printed and "decodes" in printed
    assert Image.open(folder / "report" / "samples.png").size[0] > 400
    assert list((folder / "report").glob("*.l3c"))
    assert "val/bpsp" in json.loads((folder / "result.json").read_text())["fit"]["metrics"]

    import codec

    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("noise.png")
    checkpoint = ["--checkpoint", str(folder / "checkpoints" / "last.ckpt")]
    assert codec.main(["compress", "noise.png", "--output", "out", *checkpoint]) == 0
    assert codec.main(["decompress", "out", "--output", "back", *checkpoint]) == 0
    assert np.array_equal(np.array(Image.open("back/noise.png")), pixels)


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


def test_test_reports_estimate_and_file_size():
    run("fit", "--config", str(CONFIGS / "quickstart.yaml"), "--trainer.max_steps=2")
    run("test", "--config", str(CONFIGS / "quickstart.yaml"), "--ckpt_path=last")
    metrics = json.loads(Path("runs/l3c/quickstart/000/result.json").read_text())["test"]["metrics"]
    assert metrics["test/file_bpsp"] == pytest.approx(metrics["test/bpsp"], rel=0.01)


def test_twenty_steps_equal_ten_and_ten_more():
    """bfloat16 autocast, clipping, schedule, crops and flips: every logged digit."""
    config = ["--config", str(CONFIGS / "quickstart.yaml"), "--data.init_args.num_dead_leaves=2"]
    small = ["--data.init_args.crops_per_epoch=64", "--data.init_args.batch_size=8", "--data.init_args.crop_size=32"]
    schedule = ["--model.init_args.lr_scheduler.init_args.total_steps=40"]
    run("fit", *config, *small, *schedule, "--trainer.max_steps=20", "--run.name=whole")
    run("fit", *config, *small, *schedule, "--trainer.max_steps=10", "--run.name=parts")
    run("fit", *config, *small, *schedule, "--trainer.max_steps=20", "--run.name=parts", "--ckpt_path=last")
    whole, parts = (logged(Path("runs", name, "000"), "train/bpsp") for name in ("whole", "parts"))
    assert len(whole) == 20 and parts == whole


GOLDEN_LOSSES = [10.7279, 10.7438, 10.6014, 11.0161, 10.6712]


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


def test_module_loads_from_its_checkpoint():
    run("fit", "--config", str(CONFIGS / "quickstart.yaml"), "--trainer.max_steps=1")
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
