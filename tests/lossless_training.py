"""What a lossless codec's quickstart must do, for every method that has one: train, report, resume, test, compress."""

import csv
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from callbacks.reports.codec_report import CodecReport
from datamodules.embedded_photos import EmbeddedPhotos
from train import main

CONFIGS = Path(__file__).parents[1] / "configs"
SMALL = [
    "--data.init_args.num_dead_leaves=2",
    "--data.init_args.val_crop_size=32",
    "--trainer.accelerator=cpu",
    "--trainer.enable_model_summary=false",
    "--trainer.log_every_n_steps=1",
    "--seed_everything=7",
]


class Quickstart(NamedTuple):
    """``configs/<method>/quickstart.yaml`` with options that make the network narrow."""

    method: str
    extension: str
    narrow: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return Path("runs", self.method, "quickstart", "000")

    def run(self, command: str, *options: str) -> None:
        main([command, "--config", str(CONFIGS / self.method / "quickstart.yaml"), *SMALL, *self.narrow, *options])


def logged(folder: Path, column: str = "train/bpsp") -> list[float]:
    """Every value of a column, over all parts of a run."""
    values = []
    for file in sorted((folder / "csv").glob("version_*/metrics.csv")):
        values += [float(row[column]) for row in csv.DictReader(file.read_text().splitlines()) if row.get(column)]
    return values


@pytest.fixture
def small_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out photographs of 64 x 96 pixels."""
    whole = EmbeddedPhotos.held_out_images

    def small(self: EmbeddedPhotos) -> dict[str, np.ndarray]:
        return {name: np.ascontiguousarray(pixels[:64, :96]) for name, pixels in whole(self).items()}

    monkeypatch.setattr(EmbeddedPhotos, "held_out_images", small)


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without files and samples at the end of a training, which other tests look at."""
    monkeypatch.setattr(CodecReport, "on_fit_end", lambda *_: None)


def check_report_and_files(quickstart: Quickstart, capsys: pytest.CaptureFixture) -> None:
    """Training ends with a table, a picture and a file; the checkpoint compresses; ``test`` measures files."""
    quickstart.run("fit", "--trainer.max_steps=4", "--trainer.val_check_interval=2")
    folder = quickstart.folder
    printed = capsys.readouterr().out
    assert "bpsp of files" in printed and "WebP" in printed and "decodes" in printed
    assert Image.open(folder / "report" / "samples.png").size[0] > 300
    assert list((folder / "report").glob(f"*{quickstart.extension}"))
    assert "val/bpsp" in json.loads((folder / "result.json").read_text())["fit"]["metrics"]
    quickstart.run("test", "--ckpt_path=last")
    metrics = json.loads((folder / "result.json").read_text())["test"]["metrics"]
    assert metrics["test/file_bpsp"] == pytest.approx(metrics["test/bpsp"], rel=0.02)

    import codec

    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("noise.png")
    checkpoint = ["--checkpoint", str(folder / "checkpoints" / "last.ckpt")]
    assert codec.main(["compress", "noise.png", "--output", "out", *checkpoint]) == 0
    assert codec.main(["decompress", "out", "--output", "back", *checkpoint]) == 0
    assert np.array_equal(np.array(Image.open("back/noise.png")), pixels)


def check_resume(quickstart: Quickstart) -> None:
    """Ten steps equal five and five more, in the middle of an epoch of four and across its end, in every digit."""
    options = [
        "--data.init_args.crops_per_epoch=32",
        "--data.init_args.batch_size=8",
        "--trainer.limit_val_batches=1",
        "--trainer.num_sanity_val_steps=0",
        "--model.init_args.lr_scheduler.init_args.total_steps=40",
    ]
    quickstart.run("fit", *options, "--trainer.max_steps=10", "--run.name=whole")
    quickstart.run("fit", *options, "--trainer.max_steps=5", "--run.name=parts")
    quickstart.run("fit", *options, "--trainer.max_steps=10", "--run.name=parts", "--ckpt_path=last")
    whole, parts = (logged(Path("runs", name, "000")) for name in ("whole", "parts"))
    assert len(whole) == 10 and len(set(whole)) == 10 and parts == whole
