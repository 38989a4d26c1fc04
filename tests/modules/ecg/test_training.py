"""Training on a small set of files: it learns, two processes train and score as one, a batch of every config runs."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything

from callbacks.reports.classification_report import ClassificationReport
from callbacks.training_phases import TrainingPhases
from datamodules.physionet2017 import PhysioNet2017
from modules.ecg.augmentation import Augmentation
from modules.ecg.inference import load_classifier
from modules.ecg.module import ECG
from modules.ecg.nets import CNN, CRNN
from tests.modules.ecg.wfdb_files import write_set
from train import main

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "configs" / "ecg").glob("*.yaml"))
TINY = ["--model.init_args.network.init_args.width=2", "--model.init_args.network.init_args.layers_per_block=1"]
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def tiny_module(**options: object) -> ECG:
    torch.manual_seed(1)
    return ECG(CNN(num_blocks=3, layers_per_block=1, width=4), **options)  # type: ignore[arg-type]


def tiny_data(root: Path, **options: object) -> PhysioNet2017:
    return PhysioNet2017(root=str(root), num_folds=2, batch_size=4, val_batch_size=3, **options)  # type: ignore[arg-type]


def test_it_learns_regular_from_noise(tmp_path: Path) -> None:
    write_set(tmp_path)
    seed_everything(0, verbose=False)
    module = tiny_module(augmentation=Augmentation(), optimizer=lambda p: torch.optim.Adam(p, lr=0.01))
    losses: list[float] = []
    module.log = lambda name, value, **_: losses.append(float(value)) if name == "train/loss" else None  # type: ignore
    Trainer(max_epochs=12, limit_val_batches=0, **QUIET).fit(module, tiny_data(tmp_path))  # type: ignore[arg-type]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


CURVES = {
    "cnn": [9.469480, 39.400425, 15.669111, 8.666965],
    "crnn": [2.447523, 6.657050, 4.388702, 4.054233],
}
"""Losses of four steps of Adam."""


@pytest.mark.parametrize("name", ["cnn", "crnn"])
def test_the_first_losses_stay_what_they_are(tmp_path: Path, name: str) -> None:
    torch.manual_seed(1)
    if name == "cnn":
        module = ECG(CNN(num_blocks=3, layers_per_block=1, width=4), augmentation=Augmentation())
    else:
        small = {"num_blocks": 3, "layers_per_block": 1, "width": 4, "units": 5, "lstm_dropout": 0.0}
        network = CRNN(**small, downsample="max_pool", summary="last")  # type: ignore[arg-type]
        options = {"truncate_spectrogram": True, "reduction": "mean"}
        module = ECG(network, augmentation=Augmentation("paper", "heart_rate"), **options)  # type: ignore[arg-type]
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    data = PhysioNet2017(root=str(write_set(tmp_path)), num_folds=2, batch_size=4)
    data.setup("fit")
    losses = []
    for index, batch in zip(range(4), data.train_dataloader(), strict=False):
        loss = module.training_step(batch, index)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses == pytest.approx(CURVES[name], rel=2e-3)


def test_the_random_numbers_of_augmentation_follow_rank_and_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    module = tiny_module()

    def draw() -> float:
        return float(torch.rand((), generator=module.batch_generator(0)))

    draws = {draw()}
    for name in ("global_rank", "current_epoch"):
        monkeypatch.setattr(type(module), name, 1)
        draws.add(draw())
        monkeypatch.undo()
    assert len(draws) == 3


def test_a_schedule_is_stepped_by_batch_and_frozen_weights_are_left_out() -> None:
    module = tiny_module(lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1))
    module.network.features.requires_grad_(False)
    configured = module.configure_optimizers()
    assert configured["lr_scheduler"]["interval"] == "step"
    [group] = configured["optimizer"].param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in module.network.classifier.parameters()}


def test_each_split_counts_for_itself() -> None:
    module = tiny_module().eval()
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    data = {"signal": torch.randn(2, 900), "length": torch.tensor([900, 800]), "label": torch.tensor([1, 2])}
    module.test_step(data, 0)
    assert {split: int(counts.sum()) for split, counts in module.matrices().items()} == {"val": 0, "test": 2}
    module.validation_step(data, 0)
    assert {split: int(counts.sum()) for split, counts in module.matrices().items()} == {"val": 2, "test": 2}
    assert int(module.train_f1.confusion.sum()) == 0


def test_augmentation_follows_epoch_and_batch() -> None:
    module = tiny_module()
    draws = [float(torch.rand((), generator=module.batch_generator(index))) for index in (0, 1, 0)]
    assert draws[0] == draws[2] != draws[1]
    other = tiny_module(augmentation_seed=1)
    assert float(torch.rand((), generator=other.batch_generator(0))) != draws[0]


def score(root: Path, devices: int) -> float:
    """``test/f1`` of an untrained network on the second half of the set; its report is in ``root/<devices>``."""
    torch.set_num_threads(1)
    strategy = "ddp_fork" if devices > 1 else "auto"
    options = {"callbacks": ClassificationReport(), "default_root_dir": root / str(devices), **QUIET}
    trainer = Trainer(devices=devices, strategy=strategy, **options)  # type: ignore[arg-type]
    [metrics] = trainer.test(tiny_module(), tiny_data(root, fold=1), verbose=False)
    return metrics["test/f1"]


def test_two_processes_score_as_one(tmp_path: Path) -> None:
    write_set(tmp_path, 50)  # 25 test records: the ranks have 13 and 12
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, check=True, timeout=280, capture_output=True, text=True)
    assert float(done.stdout.split()[-1]) == score(tmp_path, 1)
    alone, together = (json.loads((tmp_path / name / "report.test.json").read_text()) for name in "12")
    assert alone == together and sum(map(sum, alone["confusion"])) == 25


PHASES = [
    {"epochs": 1, "head": "mean"},
    {"epochs": 1, "head": "lstm", "train_features": False},
    {"epochs": 1, "head": "lstm", "train_features": True},
]


class Trace(Callback):
    """The weights of this rank after every epoch, in ``<folder>/<epoch>-<rank>.pt``, and the head in use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        weights = {name: p.detach().clone() for name, p in pl_module.named_parameters()}
        content = {"weights": weights, "head": pl_module.network.head}  # type: ignore[union-attr]
        torch.save(content, self.folder / f"{trainer.current_epoch}-{trainer.global_rank}.pt")


def train_in_phases(root: Path, strategy: str) -> None:
    """Three phases of one epoch in two processes."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    module = ECG(CRNN(num_blocks=2, layers_per_block=1, width=2, units=3, lstm_layers=1, head="mean"), Augmentation())
    module.hparams.clear()  # objects, where the command line leaves plain values; no checkpoint may hold them
    callbacks = [TrainingPhases(PHASES, str(root / "phases")), Trace(root)]
    options = {"callbacks": callbacks, "default_root_dir": root, "num_sanity_val_steps": 0, **QUIET}
    Trainer(devices=2, strategy=strategy, max_epochs=3, **options).fit(module, tiny_data(root))  # type: ignore[arg-type]


def test_two_processes_train_every_phase_of_a_crnn(tmp_path: Path) -> None:
    write_set(tmp_path)
    command = [sys.executable, __file__, str(tmp_path), "ddp_fork_find_unused_parameters_true"]
    done = subprocess.run(command, timeout=280, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    epochs = [[torch.load(tmp_path / f"{epoch}-{rank}.pt") for rank in (0, 1)] for epoch in range(3)]
    assert [one["head"] for one, _ in epochs] == ["mean", "lstm", "lstm"]
    for one, other in epochs:
        assert all(torch.equal(one["weights"][name], other["weights"][name]) for name in one["weights"])
    parts = ("network.features", "network.dense", "network.forward_lstm", "network.backward_lstm")

    def changed(before: dict, after: dict) -> set[str]:
        return {p for p in parts for name in after if name.startswith(p) and not torch.equal(before[name], after[name])}

    weights = [one["weights"] for one, _ in epochs]
    assert changed(weights[0], weights[1]) == {"network.forward_lstm", "network.backward_lstm"}
    assert changed(weights[1], weights[2]) == {"network.features", "network.forward_lstm", "network.backward_lstm"}


def test_a_crnn_under_plain_ddp_names_the_strategy(tmp_path: Path) -> None:
    module = ECG(CRNN(num_blocks=2, layers_per_block=1, width=2, units=3))
    module.trainer = Trainer(strategy="ddp", **QUIET)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"add --trainer\.strategy ddp_find_unused_parameters_true"):
        module.setup("fit")
    module.setup("test")
    module.trainer = Trainer(strategy="ddp_find_unused_parameters_true", **QUIET)  # type: ignore[arg-type]
    module.setup("fit")
    plain = tiny_module()
    plain.trainer = Trainer(strategy="ddp", **QUIET)  # type: ignore[arg-type]
    plain.setup("fit")


class SaveAt(Callback):
    """Checkpoints in the middle of the second epoch and at the end of the first."""

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.counts = folder, torch.zeros(0)

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if self.folder and trainer.current_epoch == 1 and trainer.fit_loop.epoch_loop.batch_idx == 1:
            trainer.save_checkpoint(self.folder / "middle.ckpt")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.counts = pl_module.train_f1.confusion.clone()  # type: ignore[union-attr, operator]
        if self.folder and trainer.current_epoch == 0:
            trainer.save_checkpoint(self.folder / "end.ckpt")


@pytest.mark.parametrize("name", ["middle", "end"])
def test_the_training_score_of_a_resumed_epoch_is_that_of_the_whole(tmp_path: Path, name: str) -> None:
    write_set(tmp_path)
    scores = []
    for checkpoint in (None, tmp_path / f"{name}.ckpt"):
        module = tiny_module(augmentation=Augmentation())
        module.hparams.clear()
        watch = SaveAt(tmp_path if checkpoint is None else None)
        options = {"callbacks": watch, "default_root_dir": tmp_path, "num_sanity_val_steps": 0, **QUIET}
        trainer = Trainer(max_epochs=2, **options)  # type: ignore[arg-type]
        trainer.fit(module, tiny_data(tmp_path), ckpt_path=checkpoint)
        scores.append((float(trainer.callback_metrics["train/f1"]), watch.counts))
    (expected, counts), (resumed, resumed_counts) = scores
    assert resumed == expected and resumed_counts.equal(counts)
    assert counts.sum() == 16  # four batches of four


def test_class_weights_belong_to_the_classes() -> None:
    assert tiny_module(class_weights=[1, 2, 3, 4]).class_weights.tolist() == [1, 2, 3, 4]
    assert tiny_module(class_weights=None).class_weights is None
    with pytest.raises(ValueError, match="one number for each of 4 classes"):
        tiny_module(class_weights=[1.0, 2.0])


def test_options_of_the_loss_reach_the_loss() -> None:
    """Weights and reduction in training; validation is a mean in both cases."""
    data = {"signal": torch.randn(3, 2000), "length": torch.tensor([2000, 1500, 900]), "label": torch.tensor([0, 3, 3])}
    plain = {"class_weights": None, "reduction": "mean"}
    values = {}
    for name, options in {
        "plain": plain,
        "sum": {**plain, "reduction": "sum"},
        "weights": {"reduction": "mean"},
    }.items():
        module, logged = tiny_module(**options).eval(), {}
        module.log = lambda key, value, logged=logged, **_: logged.update({key: value})  # type: ignore[method-assign]
        torch.manual_seed(0)
        values[name] = float(module.training_step(data, 0).detach())
        module.validation_step(data, 0)
        assert float(logged["val/loss"]) == pytest.approx(values[name] / (3 if name == "sum" else 1), rel=1e-5)
    assert values["sum"] == pytest.approx(3 * values["plain"], rel=1e-5)
    assert values["weights"] > 2 * values["plain"]


def test_predict_leaves_a_row_for_each_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through train.py: in the order of the test list, named, and as the network has them."""
    write_set(tmp_path / "data", 50)
    monkeypatch.setenv("PARSIMONY_DATA", str(tmp_path / "data"))
    words = ["--config", str(ROOT / "configs" / "ecg" / "narrow_cnn.yaml"), *TINY, "--run.dir", str(tmp_path / "runs")]
    words += ["--data.init_args.splits=null", "--data.init_args.num_folds=2", "--data.init_args.val_batch_size=5"]
    words += ["--trainer.accelerator=cpu", "--trainer.precision=32"]
    main(["fit", *words, "--trainer.max_steps=2"])
    main(["predict", *words, "--trainer.max_steps=2", "--ckpt_path", "last"])
    [file] = (tmp_path / "runs").rglob("probabilities.predict.csv")
    with file.open() as lines:
        header, *rows = csv.reader(lines)
    data = PhysioNet2017(root=str(tmp_path / "data"), num_folds=2)
    data.setup("predict")
    names = [item["name"][0] for item in data.sets["test"]]  # type: ignore[union-attr]
    assert header == ["index", "name", "N", "A", "O", "~"]
    assert [row[1] for row in rows] == names == sorted(names) and [row[0] for row in rows] == [*map(str, range(25))]
    values = torch.tensor([[float(word) for word in row[2:]] for row in rows])
    assert torch.allclose(values.sum(1), torch.ones(25), atol=1e-5)
    classifier = load_classifier(next((tmp_path / "runs").rglob("last.ckpt")))
    for row, item in zip(values, data.sets["test"], strict=True):  # type: ignore[call-overload]
        alone = classifier(item["signal"], item["length"]).logits.softmax(1)
        assert torch.allclose(row, alone.detach()[0], atol=1e-4)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_one_batch_of_every_config(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_set(tmp_path, 50)
    monkeypatch.setenv("PARSIMONY_DATA", str(tmp_path))
    overlay = str(ROOT / "configs" / "ecg" / "overlays" / "no_augmentation.yaml")
    small = ["--data.init_args.splits=null", "--data.init_args.num_folds=2", "--data.init_args.batch_size=2"]
    once = ["--trainer.fast_dev_run=1", "--trainer.accelerator=cpu", "--trainer.enable_model_summary=false"]
    more = ["--config", overlay] if path.stem == "narrow_cnn" else []
    main(["fit", "--config", str(path), *more, *TINY, *small, *once])


if __name__ == "__main__":
    if len(sys.argv) > 2:
        train_in_phases(Path(sys.argv[1]), sys.argv[2])
    else:
        print(score(Path(sys.argv[1]), 2))
