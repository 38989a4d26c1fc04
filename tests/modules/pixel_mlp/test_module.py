"""The LightningModule through the command line, on the embedded photographs, with a narrow network."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modules.pixel_mlp.codec import Codec, estimated_bits
from modules.pixel_mlp.context import contexts, pad
from modules.pixel_mlp.losses import mixture_bits, mixtures_bits
from modules.pixel_mlp.module import LosslessPixels
from modules.pixel_mlp.nets import PixelMLP
from train import main

CONFIG = str(Path(__file__).parents[3] / "configs" / "pixel_mlp" / "quickstart.yaml")
NARROW = [
    "--model.init_args.network.init_args.hidden=8",
    "--data.init_args.num_dead_leaves=2",
    "--data.init_args.crops_per_epoch=256",
    "--data.init_args.batch_size=16",
    "--trainer.accelerator=cpu",
    "--trainer.enable_model_summary=false",
    "--trainer.log_every_n_steps=1",
    "--seed_everything=7",
]


def run(command: str, *options: str) -> None:
    main([command, "--config", CONFIG, *NARROW, *options])


def logged(folder: Path, column: str = "train/bpsp") -> list[float]:
    values = []
    for file in sorted((folder / "csv").glob("version_*/metrics.csv")):
        values += [float(row[column]) for row in csv.DictReader(file.read_text().splitlines()) if row.get(column)]
    return values


def test_quickstart_trains_reports_and_its_checkpoint_compresses(capsys):
    run("fit", "--trainer.max_steps=8", "--trainer.val_check_interval=4")
    folder = Path("runs/pixel_mlp/quickstart/000")
    printed = capsys.readouterr().out
    assert "bpsp of files" in printed and "WebP" in printed and "decodes" in printed
    assert list((folder / "report").glob("*.pmlp")) and (folder / "report" / "samples.png").is_file()
    assert "val/bpsp" in json.loads((folder / "result.json").read_text())["fit"]["metrics"]

    import codec

    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("noise.png")
    checkpoint = ["--checkpoint", str(folder / "checkpoints" / "last.ckpt")]
    assert codec.main(["compress", "noise.png", "--output", "out", *checkpoint]) == 0
    assert codec.main(["decompress", "out", "--output", "back", *checkpoint]) == 0
    assert np.array_equal(np.array(Image.open("back/noise.png")), pixels)


def test_test_reports_estimate_and_file_size():
    run("fit", "--trainer.max_steps=2")
    run("test", "--ckpt_path=last")
    metrics = json.loads(Path("runs/pixel_mlp/quickstart/000/result.json").read_text())["test"]["metrics"]
    assert metrics["test/file_bpsp"] == pytest.approx(metrics["test/bpsp"], rel=0.01)


def test_twenty_steps_equal_ten_and_ten_more():
    schedule = "--model.init_args.lr_scheduler.init_args.total_steps=40"
    run("fit", schedule, "--trainer.max_steps=20", "--run.name=whole")
    run("fit", schedule, "--trainer.max_steps=10", "--run.name=parts")
    run("fit", schedule, "--trainer.max_steps=20", "--run.name=parts", "--ckpt_path=last")
    whole, parts = (logged(Path("runs", name, "000")) for name in ("whole", "parts"))
    assert len(whole) == 20 and parts == whole


def loss_of(seed: int = 0, size: int = 14, **options: int) -> float:
    torch.manual_seed(0)
    module = LosslessPixels(PixelMLP(8, 1, 2), **options)
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    image = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (8, 3, size, size), dtype=np.uint8))
    return float(module.training_step({"image": image}, 0).detach())


def test_every_option_changes_the_loss_and_bad_ones_are_refused():
    losses = [loss_of(), loss_of(border_every=2), loss_of(gray_every=2)]
    assert len(set(losses)) == 3
    for options in ({"border_every": 0}, {"gray_every": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            LosslessPixels(PixelMLP(8), **options)


def test_a_step_counts_bits_of_pixels_with_their_neighbours_and_of_whole_crops():
    """By hand: crop 0 gray, crop 1 also as an image of its own; of the others the 11 x 8 pixels inside."""
    torch.manual_seed(0)
    module = LosslessPixels(PixelMLP(8, 1, 2), border_every=16, gray_every=16)
    kept = {}
    module.log = lambda name, value, **_: kept.update({name: float(value)})  # type: ignore[method-assign]
    image = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (8, 3, 14, 14), dtype=np.uint8))
    loss = module.training_step({"image": image}, 0)
    gray = image.clone()
    gray[0] = gray[0, 1]
    bits = 0.0
    for part in (gray.to(torch.int16), pad(image[1:2])):
        known = contexts(part)
        mixtures = module.network(known, exact=False)
        bits += sum(float(mixture_bits(m, c.target).sum()) for m, c in zip(mixtures, known, strict=True))
    assert float(loss.detach()) == pytest.approx(bits / (3 * (8 * 11 * 8 + 14 * 14)), rel=1e-5) == kept["train/bpsp"]
    assert image[0, 0].ne(image[0, 1]).any()  # the batch stays as it was


def test_an_image_in_strips_costs_what_it_costs_whole():
    torch.manual_seed(0)
    network = PixelMLP(8, 1, 2)
    image = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (2, 3, 150, 9), dtype=np.uint8))
    with torch.no_grad():
        bits = mixtures_bits(network, contexts(pad(image)), exact=True)
        assert bits.shape == (3, 2 * 150 * 9)
        assert float(estimated_bits(network, image)) == pytest.approx(float(bits.sum()), rel=1e-6)
    one = image[0].permute(1, 2, 0).contiguous().numpy()
    assert Codec(network).estimated_bits(one) == pytest.approx(float(bits[:, : 150 * 9].sum()), rel=1e-6)


GOLDEN = [3.7434, 3.6302, 4.0772, 3.7760]


def test_golden_loss_curve():
    """Rewritten only with a reason: the first steps of the quickstart at seed 7, narrow, in float32."""
    run("fit", "--trainer.max_steps=4", "--trainer.precision=32-true")
    assert logged(Path("runs/pixel_mlp/quickstart/000")) == pytest.approx(GOLDEN, rel=2e-3)


def test_samples_are_drawn_from_the_network():
    module = LosslessPixels(PixelMLP(8, 1, 2))
    image = torch.zeros(2, 3, 9, 12, dtype=torch.uint8)
    samples = module.sample(image)
    assert samples.shape == (1, 2, 3, 9, 12) and samples.dtype == torch.uint8
    assert torch.equal(samples, module.sample(image)) and not torch.equal(samples, module.sample(image, seed=1))
