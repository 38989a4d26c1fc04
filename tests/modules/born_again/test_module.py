"""Steps of the image module: what it learns from, what it reports."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from modules.born_again.losses import ban
from modules.born_again.module import BornAgainClassifier
from modules.born_again.resnet import WideResNet
from modules.components.frozen import Frozen
from modules.components.mean import Mean


def batch(seed: int = 0, size: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(256, (size, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return {"image": image, "label": torch.randint(10, (size,), generator=generator)}


def tiny() -> WideResNet:
    return WideResNet(depth=10, width=1, base_channels=4)


def test_images_are_normalised_by_channel() -> None:
    module = BornAgainClassifier(tiny, mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    x = module.normalized(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))
    torch.testing.assert_close(x[0, :, 0, 0], torch.tensor([1.0, 0.75, 0.5]))


def test_labels_first_then_the_teacher() -> None:
    module = BornAgainClassifier(tiny, loss=ban).eval()
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign,assignment]
    data = batch()
    logits = module(data["image"])
    torch.testing.assert_close(module.training_step(data, 0), cross_entropy(logits, data["label"]))
    other = tiny().eval()
    module.teacher = Frozen(other)
    expected = ban(logits, other(module.normalized(data["image"])), data["label"])
    torch.testing.assert_close(module.training_step(data, 0), expected)


def test_the_teacher_is_neither_trained_nor_saved() -> None:
    module = BornAgainClassifier(tiny)
    module.teacher = Frozen(tiny())
    assert len(list(module.parameters())) == len(list(tiny().parameters()))
    assert all(not name.startswith("teacher") for name in module.state_dict())
    assert module.train().teacher is not None and not module.teacher.network.training  # type: ignore[union-attr]


def test_errors_and_ensembles_count_images() -> None:
    module = BornAgainClassifier(tiny)
    networks = {g: Frozen(tiny()) for g in (1, 2)}
    batches = [batch(seed, size) for seed, size in ((0, 8), (1, 5))]
    scores = module.evaluate(networks, {"gen1": [1], "ens2": [1, 2]}, batches)
    wrong: dict[str, int] = {"gen1": 0, "ens2": 0}
    nats = {"gen1": 0.0, "ens2": 0.0}
    for data in batches:
        p = {g: network(module.normalized(data["image"])).softmax(1) for g, network in networks.items()}
        wrong["gen1"] += int((p[1].argmax(1) != data["label"]).sum())
        wrong["ens2"] += int(((p[1] + p[2]).argmax(1) != data["label"]).sum())
        for name, mean in (("gen1", p[1]), ("ens2", (p[1] + p[2]) / 2)):
            nats[name] -= float(mean.gather(1, data["label"].unsqueeze(1)).log().sum())
    expected = {f"{name}/error": 100 * count / 13 for name, count in wrong.items()}
    expected |= {f"{name}/nll": total / 13 for name, total in nats.items()}
    assert {name: float(value) for name, value in scores.items()} == pytest.approx(expected)


class Constant(torch.nn.Module):
    """The same logits for every image."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(x), -1)


def test_ensembles_average_probabilities_and_not_logits() -> None:
    """One member is sure of class 0, beyond what a probability can say; two prefer class 1."""
    networks = {
        1: Frozen(Constant(20.0, 0.0, 0.0)),
        2: Frozen(Constant(0.0, 4.0, 0.0)),
        3: Frozen(Constant(0.0, 4.0, 0.0)),
    }
    data = batch() | {"label": torch.ones(8, dtype=torch.int64)}
    scores = BornAgainClassifier(tiny).evaluate(networks, {"gen1": [1], "all": [1, 2, 3]}, [data])
    errors = {name: float(value) for name, value in scores.items() if name.endswith("/error")}
    assert errors == {"gen1/error": 100.0, "all/error": 0.0}


def test_every_split_counts_its_own_errors() -> None:
    """Percent of the images, not of the batches."""
    module = BornAgainClassifier(lambda: Constant(1.0, *[0.0] * 9)).eval()
    logged: dict[str, object] = {}
    module.log = lambda name, value, **kwargs: logged.update({name: value})  # type: ignore[method-assign,assignment]
    for labels in ([0, 0, 0, 1], [2, 3]):
        data = batch(size=len(labels)) | {"label": torch.tensor(labels)}
        module.validation_step(data, 0)
        module.test_step(data, 0)
        module.training_step(data, 0)
    for name in ("train", "val", "test"):
        assert isinstance(getattr(module, f"{name}_error"), Mean)  # to look for NaN makes a GPU wait
        assert logged[f"{name}/error"] is getattr(module, f"{name}_error")
        assert float(logged[f"{name}/error"].compute()) == pytest.approx(100 * 3 / 6)  # type: ignore[attr-defined]
    expected = cross_entropy(torch.tensor([[1.0, *[0.0] * 9]] * 2), torch.tensor([2, 3]))
    torch.testing.assert_close(logged["val/loss"], expected)
    torch.testing.assert_close(logged["train/loss"], expected)


def test_predictions_are_probabilities() -> None:
    module = BornAgainClassifier(tiny).eval()
    data = batch()
    probabilities = module.predict_step(data, 0)
    torch.testing.assert_close(probabilities, module.student(module.normalized(data["image"])).softmax(1))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(8))


def test_images_and_networks_are_channels_last() -> None:
    module = BornAgainClassifier(tiny, teacher=tiny, teacher_weights="some.ckpt")
    assert module.normalized(batch()["image"]).is_contiguous(memory_format=torch.channels_last)
    assert module.teacher is not None
    for network in (module.student, module.teacher.network):
        assert network.stages[0][0].conv2.weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore


class Rates(Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *args: object) -> None:
        self.values.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_the_schedule_steps_with_epochs_and_not_with_batches(tmp_path: Path) -> None:
    module = BornAgainClassifier(
        tiny,
        optimizer=lambda p: torch.optim.SGD(p, lr=1.0),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5),
    )
    rates = Rates()
    trainer = quiet_trainer(tmp_path, max_epochs=3, callbacks=[rates])
    trainer.fit(module, DataLoader([batch()] * 2, batch_size=None))  # type: ignore[arg-type]
    assert rates.values == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_frozen_layers_are_not_given_to_the_optimizer() -> None:
    module = BornAgainClassifier(tiny)
    module.student.stem.requires_grad_(False)  # type: ignore[union-attr]
    [group] = module.configure_optimizers().param_groups
    assert len(group["params"]) == len(list(module.parameters())) - 1


def quiet_trainer(folder: Path, **options: Any) -> Trainer:
    return Trainer(
        **{
            "max_epochs": 1,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": folder,
        }
        | options
    )


def fit(module: BornAgainClassifier, folder: Path) -> None:
    trainer = quiet_trainer(folder)
    trainer.fit(module, DataLoader([batch()], batch_size=None))
    trainer.save_checkpoint(folder / "teacher.ckpt", weights_only=True)


def test_a_teacher_is_read_from_a_checkpoint(tmp_path: Path) -> None:
    first = BornAgainClassifier(tiny, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    first._log_hyperparams = False
    first._hparams.clear()  # without the command line, an optimizer is no plain value
    fit(first, tmp_path)
    second = BornAgainClassifier(tiny, teacher=tiny, teacher_weights=str(tmp_path / "teacher.ckpt"))
    second.setup("fit")
    assert second.teacher is not None
    for name, value in second.teacher.network.state_dict().items():
        assert torch.equal(value, first.student.state_dict()[name])


def test_mistakes_with_a_teacher_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs both"):
        BornAgainClassifier(tiny, teacher=tiny)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*gone.ckpt"):
        BornAgainClassifier(tiny, teacher=tiny, teacher_weights=str(tmp_path / "gone.ckpt")).setup("fit")
    BornAgainClassifier(tiny, teacher=tiny, teacher_weights=str(tmp_path / "gone.ckpt")).setup("test")  # needs none
    (tmp_path / "torn.ckpt").write_text("no checkpoint")
    with pytest.raises(ValueError, match=r"torn\.ckpt is damaged or no checkpoint that can be read safely"):
        BornAgainClassifier(tiny, teacher=tiny, teacher_weights=str(tmp_path / "torn.ckpt")).setup("fit")
    weights = {f"student.{k}": v for k, v in WideResNet(depth=10, width=1, base_channels=2).state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="holds no student that is this WideResNet"):
        BornAgainClassifier(tiny, teacher=tiny, teacher_weights=str(tmp_path / "other.ckpt")).setup("fit")
