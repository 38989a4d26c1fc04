"""Steps of the image module: what it learns from, what it reports."""

from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from modules.born_again.losses import ban
from modules.born_again.module import BornAgainClassifier
from modules.born_again.resnet import WideResNet
from modules.components.frozen import Frozen


def batch(seed: int = 0, size: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(256, (size, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return {"image": image, "label": torch.randint(10, (size,), generator=generator)}


def tiny() -> WideResNet:
    return WideResNet(depth=10, width=1, base_channels=4)


def test_images_are_normalised_by_channel() -> None:
    module = BornAgainClassifier(tiny(), mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    x = module.normalized(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))
    torch.testing.assert_close(x[0, :, 0, 0], torch.tensor([1.0, 0.75, 0.5]))


def test_labels_first_then_the_teacher() -> None:
    module = BornAgainClassifier(tiny(), loss=ban).eval()
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign,assignment]
    data = batch()
    logits = module(data["image"])
    torch.testing.assert_close(module.training_step(data, 0), cross_entropy(logits, data["label"]))
    other = tiny().eval()
    module.teacher = Frozen(other)
    expected = ban(logits, other(module.normalized(data["image"])), data["label"])
    torch.testing.assert_close(module.training_step(data, 0), expected)


def test_the_teacher_is_neither_trained_nor_saved() -> None:
    module = BornAgainClassifier(tiny())
    module.teacher = Frozen(tiny())
    assert len(list(module.parameters())) == len(list(tiny().parameters()))
    assert all(not name.startswith("teacher") for name in module.state_dict())
    assert module.train().teacher is not None and not module.teacher.network.training  # type: ignore[union-attr]


def test_errors_and_ensembles_count_images() -> None:
    module = BornAgainClassifier(tiny())
    networks = {g: Frozen(tiny()) for g in (1, 2)}
    batches = [batch(seed, size) for seed, size in ((0, 8), (1, 5))]
    scores = module.evaluate(networks, {"gen1": [1], "ens2": [1, 2]}, batches)
    wrong: dict[str, int] = {"gen1": 0, "ens2": 0}
    for data in batches:
        p = {g: network(module.normalized(data["image"])).softmax(1) for g, network in networks.items()}
        wrong["gen1"] += int((p[1].argmax(1) != data["label"]).sum())
        wrong["ens2"] += int(((p[1] + p[2]).argmax(1) != data["label"]).sum())
    assert {name: float(value) for name, value in scores.items()} == pytest.approx(
        {f"{name}/error": 100 * count / 13 for name, count in wrong.items()}
    )


def fit(module: BornAgainClassifier, folder: Path) -> None:
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, DataLoader([batch()], batch_size=None))
    trainer.save_checkpoint(folder / "teacher.ckpt", weights_only=True)


def test_a_teacher_is_read_from_a_checkpoint(tmp_path: Path) -> None:
    first = BornAgainClassifier(tiny(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    first._log_hyperparams = False
    first._hparams.clear()  # without the command line, an optimizer is no plain value
    fit(first, tmp_path)
    second = BornAgainClassifier(tiny(), teacher=tiny(), teacher_weights=str(tmp_path / "teacher.ckpt"))
    second.setup("fit")
    assert second.teacher is not None
    for name, value in second.teacher.network.state_dict().items():
        assert torch.equal(value, first.student.state_dict()[name])


def test_mistakes_with_a_teacher_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs both"):
        BornAgainClassifier(tiny(), teacher=tiny())
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*gone.ckpt"):
        BornAgainClassifier(tiny(), teacher=tiny(), teacher_weights=str(tmp_path / "gone.ckpt")).setup("fit")
    (tmp_path / "torn.ckpt").write_text("no checkpoint")
    with pytest.raises(ValueError, match=r"torn\.ckpt is damaged or no checkpoint that can be read safely"):
        BornAgainClassifier(tiny(), teacher=tiny(), teacher_weights=str(tmp_path / "torn.ckpt")).setup("fit")
    weights = {f"student.{k}": v for k, v in WideResNet(depth=10, width=1, base_channels=2).state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="holds no student that is this WideResNet"):
        BornAgainClassifier(tiny(), teacher=tiny(), teacher_weights=str(tmp_path / "other.ckpt")).setup("fit")
