"""The LightningModule: the step, its options, resume, two processes, and the shipped configs."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Callback, LightningDataModule, Trainer
from torch.utils.data import DataLoader

import codec as codec_program
from modules.components.coding.container import unpack
from modules.components.coding.model_file import save_weights
from modules.components.ms_ssim import decibels, ms_ssim
from modules.cpm.losses import rate_hinge, symbol_bits, weight_decay
from modules.cpm.module import CPM, Decibels
from modules.cpm.nets import CPMNet
from modules.pixel_mlp.nets import PixelMLP
from tests.modules.cpm.small import SMALL, picture, picture_batch
from train import main

CONFIGS = Path(__file__).parents[3] / "configs" / "cpm"
NARROW = [f"--model.init_args.network.init_args.{name}={value}" for name, value in SMALL.items()]
QUICK = [
    "--trainer.accelerator=cpu",
    "--trainer.enable_model_summary=false",
    "--trainer.log_every_n_steps=1",
    "--trainer.num_sanity_val_steps=0",
    "--data.init_args.crop_size=32",
    "--data.init_args.batch_size=2",
    "--data.init_args.val_crop_size=40",
    "--data.init_args.val_batch_size=2",
    "--data.init_args.val_batches=1",
    "--seed_everything=7",
]


class Pictures(LightningDataModule):
    """Eight crops of 32x32 in an order that does not change; whole pictures of 40x24 to test."""

    def _loader(self, number: int, size: tuple[int, int], batch_size: int) -> DataLoader:
        images = picture_batch(number, *size).byte()
        return DataLoader([{"image": image} for image in images], batch_size=batch_size)  # type: ignore[arg-type]

    def train_dataloader(self) -> DataLoader:
        return self._loader(8, (32, 32), 2)

    def val_dataloader(self) -> DataLoader:
        return self._loader(3, (33, 47), 2)

    def test_dataloader(self) -> DataLoader:
        return self._loader(4, (37, 24), 1)


def module(network: dict[str, Any] | None = None, **options: Any) -> CPM:
    torch.manual_seed(0)
    return CPM(CPMNet(**{**SMALL, **(network or {})}), **{"target_bits": 0.2, **options})


def trainer(folder: Path, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    return Trainer(default_root_dir=folder, accelerator="cpu", **{"enable_checkpointing": False, **quiet, **options})


def weights(made: CPM) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in made.network.state_dict().values()])


def step(made: CPM) -> tuple[torch.Tensor, dict[str, float]]:
    kept: dict[str, float] = {}
    made.log = lambda name, value, **_: kept.update({name: float(value)})  # type: ignore[assignment, method-assign]
    made.log_dict = lambda values, **_: kept.update({k: float(v) for k, v in values.items()})  # type: ignore[method-assign]
    return made.train().training_step({"image": picture_batch(2, 32, 32).byte()}, 0), kept


@pytest.mark.parametrize("learns", ["always", "hinge"])
def test_the_loss_by_hand(learns: str):
    made = module(context_learns=learns, distortion_weight=30.0, rate_weight=7.0, kernel_decay=0.1, center_decay=0.2)
    loss, logged = step(made)
    net, x = module().network.train(), picture_batch(2, 32, 32)
    code, logits, x_hat = net(x)
    bits = symbol_bits(logits, code.symbols)
    distortion, hinge = 1 - ms_ssim(x, x_hat).mean(), rate_hinge(bits, code.mask, 0.2)
    expected = 30 * distortion + 7 * hinge + weight_decay(net, 0.1, 0.2) + (bits.mean() if learns == "always" else 0)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert logged["train/bits_per_symbol"] == pytest.approx(float(bits.detach().mean()), rel=1e-5)
    assert logged["train/hinge"] == pytest.approx(float(hinge.detach()), rel=1e-5) and logged["train/hinge"] > 0
    assert logged["train/distortion"] == pytest.approx(float(distortion.detach()), rel=1e-5)


def test_training_starts_from_the_weights_of_another_rate(tmp_path: Path):
    made = module(target_bits=0.9)
    with torch.no_grad():
        made.network.context.last.bias += 1
    config = {"class_path": "modules.cpm.nets.CPMNet", "init_args": SMALL}
    save_weights(tmp_path / "other.pt", config, made.network.state_dict(), half=False)
    start = str(tmp_path / "other.pt")
    for stage, equal in (("fit", True), ("test", False)):
        begun = module(start_weights=start)
        begun.setup(stage)
        assert torch.equal(weights(begun), weights(made)) == equal
    more = SMALL["channels"] + 1
    for channels in (more, SMALL["channels"] - 1):
        begun, fewest = module({"channels": channels}, start_weights=start), min(channels, SMALL["channels"])
        fresh = begun.network.decoder.layers[0].weight.detach().clone()
        begun.setup("fit")
        theirs, found = made.network, begun.network
        assert torch.equal(found.context.last.bias, theirs.context.last.bias)
        last, wanted = (net.encoder.layers[-2].weight for net in (found, theirs))  # the map's logits, then channels
        assert torch.equal(last[: fewest + 1], wanted[: fewest + 1])
        assert torch.equal(found.decoder.layers[0].weight[:fewest], theirs.decoder.layers[0].weight[:fewest])
        assert torch.equal(found.decoder.layers[0].weight[fewest:], fresh[fewest:])
    with pytest.raises(ValueError, match=r"only the channels may differ .* width \d+, not \d+"):
        module({"width": SMALL["width"] + 2}, start_weights=start).setup("fit")
    save_weights(
        tmp_path / "l3c.pt",
        {"class_path": "modules.pixel_mlp.nets.PixelMLP", "init_args": {"hidden": 4}},
        PixelMLP(4).state_dict(),
        half=False,
    )
    with pytest.raises(ValueError, match="holds a PixelMLP: give weights of a CPMNet"):
        module(start_weights=str(tmp_path / "l3c.pt")).setup("fit")


def context_gradient(**options: Any) -> torch.Tensor:
    made = module(**options)
    step(made)[0].backward()
    return made.network.context.last.weight.grad


def test_the_context_model_learns_always_or_with_the_hinge():
    assert context_gradient(target_bits=100.0).any()
    assert not context_gradient(target_bits=100.0, context_learns="hinge").any()
    assert context_gradient(context_learns="hinge").any()
    plain, heavy = context_gradient(), context_gradient(rate_weight=5000.0)
    assert torch.allclose(plain, heavy), "the bits that it learns from have a weight of their own"


def test_every_option_changes_the_loss_and_bad_ones_are_refused():
    base = float(step(module())[0].detach())
    for options in (
        {"target_bits": 0.5}, {"distortion_weight": 100.0}, {"rate_weight": 100.0}, {"kernel_decay": 1.0},
        {"center_decay": 9.0}, {"counted": "masked"}, {"context_learns": "hinge"},
    ):  # fmt: skip
        assert float(step(module(**options))[0].detach()) != pytest.approx(base, rel=1e-6), options
    for options in ({"counted": "all"}, {"context_learns": "never"}):
        with pytest.raises(ValueError, match="counted is average or masked"):
            module(**options)
    for name in ("context_lr", "target_bits", "rate_weight", "distortion_weight", "kernel_decay", "center_decay"):
        with pytest.raises(ValueError, match=f"{name} must be at least 0"):
            module(**{name: -1.0})


def test_two_rates_and_a_schedule_for_both():
    made = module(context_lr=0.5, optimizer=lambda groups: torch.optim.Adam(groups, lr=0.25))
    optimizer = made.configure_optimizers()
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.5]
    sizes = [sum(p.numel() for p in group["params"]) for group in optimizer.param_groups]
    context = sum(p.numel() for p in made.network.context.parameters())
    assert sizes == [sum(p.numel() for p in made.parameters()) - context, context]
    made.lr_scheduler = lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
    for interval in ("step", "epoch"):
        made.lr_interval = interval
        assert made.configure_optimizers()["lr_scheduler"]["interval"] == interval


def test_validation_reports_rate_and_distortion(tmp_path: Path):
    made = module()
    run = trainer(tmp_path)
    run.validate(made, datamodule=Pictures(), verbose=False)
    found = {name: float(value) for name, value in run.callback_metrics.items()}
    x = picture_batch(3, 33, 47)
    with torch.no_grad():
        code, logits, x_hat = made.network.eval()(x)
        bits, rounded = symbol_bits(logits, code.symbols), x_hat.round().clamp(0, 255)
        scores = ms_ssim(x, rounded)
        losses = [5000 * (1 - ms_ssim(a, b.clamp(0, 255)).mean()) + 500 * rate_hinge(c, d, 0.2) for a, b, c, d in zip(
            x.split(2), x_hat.split(2), bits.split(2), code.mask.split(2), strict=True)]  # fmt: skip
    assert found["val/bpp"] == pytest.approx(float(bits.sum()) / x[:, 0].numel(), rel=1e-5)
    assert found["val/bits_per_symbol"] == pytest.approx(float(bits.mean()), rel=1e-5)
    assert found["val/ms_ssim"] == pytest.approx(float(scores.mean()), rel=1e-5)
    assert found["val/ms_ssim_db"] == pytest.approx(float(decibels(scores.mean())), rel=1e-4)
    error = (x - rounded).square().mean((1, 2, 3))
    assert found["val/psnr_db"] == pytest.approx(float((10 * torch.log10(255**2 / error)).mean()), rel=1e-5)
    assert found["val/loss"] == pytest.approx(float(2 * losses[0] + losses[1]) / 3, rel=1e-5)


def test_decibels_of_the_mean():
    metric = Decibels()
    metric.update(torch.tensor([0.8, 0.9]))
    metric.update(torch.tensor([1.0]))
    assert float(metric.compute()) == pytest.approx(10, rel=1e-4)


def test_test_writes_files_and_reads_them(tmp_path: Path):
    made = module()
    run = trainer(tmp_path)
    run.test(made, datamodule=Pictures(), verbose=False)
    found = {name: float(value) for name, value in run.callback_metrics.items()}
    codec = made.codec()
    images = [x.permute(1, 2, 0).byte().numpy() for x in picture_batch(4, 37, 24)]
    containers = [codec.compress(image) for image in images]
    decoded = torch.stack([torch.from_numpy(codec.decompress(c)).permute(2, 0, 1) for c in containers]).float()
    payload = [8 * len(c.tiles[0].payload) / (37 * 24) for c in containers]
    assert found["test/payload_bpp"] == pytest.approx(np.mean(payload), rel=1e-5)
    assert found["test/file_bpp"] > found["test/payload_bpp"] > found["test/bpp"]
    bits = [codec.symbol_bits(codec.read(c)) for c in containers]
    assert found["test/bpp"] == pytest.approx(np.mean(bits) / (37 * 24), rel=1e-5)
    assert found["test/bits_per_symbol"] == pytest.approx(np.mean(bits) / (5 * 5 * 3), rel=1e-5)
    scores = ms_ssim(picture_batch(4, 37, 24), decoded)
    assert found["test/ms_ssim"] == pytest.approx(float(scores.mean()), abs=1e-3)


def one_cycle(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, [0.01, 0.02], 16)


def test_resume_in_the_middle_of_an_epoch_equals_no_interruption(tmp_path: Path):
    """Of 8 batches, 2 epochs; the loader here knows no position, so the stop is behind an epoch and a validation."""

    class SaveAt(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    whole, rest = module(lr_scheduler=one_cycle), module(lr_scheduler=one_cycle)
    trainer(tmp_path, max_epochs=3, callbacks=[SaveAt()]).fit(whole, datamodule=Pictures())
    trainer(tmp_path, max_epochs=3).fit(rest, datamodule=Pictures(), ckpt_path=tmp_path / "0.ckpt", weights_only=False)
    assert torch.equal(weights(whole), weights(rest)) and not torch.equal(weights(whole), weights(module()))


def test_two_processes_learn_the_same_and_count_every_image(tmp_path: Path):
    class Save(Callback):
        def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
            parameters = torch.cat([p.detach().flatten() for p in pl_module.parameters()])
            torch.save((parameters, float(trainer.callback_metrics["val/bpp"])), tmp_path / f"{trainer.global_rank}.pt")

    options = {"devices": 2, "strategy": "ddp_fork"}
    for learns, map_kind in (("hinge", "none"), ("always", "soft")):
        made = module({"importance_map": map_kind}, context_learns=learns)
        trainer(tmp_path, max_epochs=1, callbacks=[Save()], **options).fit(made, datamodule=Pictures())
        first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
        assert torch.equal(first[0], second[0]) and first[1] == second[1]
        before = torch.cat([p.detach().flatten() for p in module({"importance_map": map_kind}).parameters()])
        assert not torch.allclose(first[0], before, atol=1e-6)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("photos", "imagenet256"):
        for split in ("train", "validation"):
            folder = tmp_path / name / split
            folder.mkdir(parents=True)
            for number in range(3):
                Image.fromarray(picture(number, 40, 50)).save(folder / f"{number}.png")
    monkeypatch.setenv("PARSIMONY_DATA", str(tmp_path))
    return tmp_path


def run(command: str, name: str, *options: str) -> None:
    main([command, "--config", str(CONFIGS / f"{name}.yaml"), *NARROW, *QUICK, *options])


def logged(folder: Path, column: str) -> list[float]:
    values = []
    for file in sorted((folder / "csv").glob("version_*/metrics.csv")):
        values += [float(row[column]) for row in csv.DictReader(file.read_text().splitlines()) if row.get(column)]
    return values


def test_a_checkpoint_of_the_small_experiment_is_a_codec(photos: Path):
    run("fit", "photos_low", "--trainer.max_steps=4", "--trainer.val_check_interval=2")
    folder = Path("runs/cpm/photos_low/000")
    metrics = json.loads((folder / "result.json").read_text())["fit"]["metrics"]
    assert {"val/bpp", "val/bits_per_symbol", "val/ms_ssim", "val/ms_ssim_db", "val/psnr_db", "val/loss"} <= set(
        metrics
    )
    assert (folder / "report" / "rate_distortion.png").is_file()
    assert len(list((folder / "report").glob("*.cpm"))) == 3
    for group, peak in ((1, 0.0015), (2, 0.002)):
        rates = logged(folder, f"lr-Adam/pg{group}")
        assert len(set(rates)) == 4 and max(rates) <= peak * 1.0001
    run("test", "photos_low", "--ckpt_path=last")
    metrics = json.loads((folder / "result.json").read_text())["test"]["metrics"]
    assert metrics["test/payload_bpp"] == pytest.approx(metrics["test/bpp"], abs=96 / (40 * 50))

    checkpoint = ["--checkpoint", str(folder / "checkpoints" / "last.ckpt")]
    image = photos / "photos" / "train" / "0.png"
    assert codec_program.main(["compress", str(image), "--output", "out", *checkpoint]) == 0
    assert unpack(Path("out/0.cpm").read_bytes()).method == "cpm"
    assert codec_program.main(["decompress", "out", "--output", "back", *checkpoint]) == 0
    assert np.array(Image.open("back/0.png")).shape == (40, 50, 3)
    with pytest.raises(SystemExit):
        run("predict", "photos_low", "--ckpt_path=last")


@pytest.mark.parametrize("name", ["imagenet_low", "imagenet_med", "imagenet_hi", "photos_med"])
def test_one_batch_of_the_other_configs(name: str, photos: Path):
    workers = ["--data.init_args.num_workers=0", "--trainer.sync_batchnorm=false"]
    run("fit", name, *workers, "--trainer.fast_dev_run=1")


GOLDEN = [5075.25, 5366.65, 4986.58]


def test_golden_loss_curve(photos: Path):
    """Rewritten only with a reason: the first steps of the small experiment at seed 7, narrow, in float32."""
    run("fit", "photos_low", "--trainer.max_steps=3", "--trainer.precision=32-true", "--trainer.limit_val_batches=0")
    assert logged(Path("runs/cpm/photos_low/000"), "train/loss") == pytest.approx(GOLDEN, rel=2e-3)
