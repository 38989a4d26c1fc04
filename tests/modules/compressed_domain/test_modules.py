"""The LightningModules: losses by hand, what is frozen, what a checkpoint holds, learning rates, mistakes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from datamodules.loading.loaders import evaluation_loader, training_loader
from modules.components.checkpoint_file import CheckpointError
from modules.components.coding.container import pack
from modules.components.coding.model_file import fingerprint
from modules.compressed_domain.joint import JointModel
from modules.compressed_domain.module import CompressionModel, padded
from modules.compressed_domain.nets import CodeResNet, CodeResNetD, CompressionNet, RGBResNet, RGBResNetD
from modules.compressed_domain.tasks import Classifier, Segmenter
from tests.modules.compressed_domain.small import settled

SMALL = {"channels": 3, "num_centers": 4, "width": 4, "units": 1}
TEXTURE = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)


class Items(Dataset):
    def __len__(self) -> int:
        return len(TEXTURE)

    def __getitem__(self, draw: Any) -> dict[str, Any]:
        index = draw[1] if isinstance(draw, tuple) else draw
        image = torch.from_numpy(TEXTURE[index]).permute(2, 0, 1)
        mask = (image[0] > 127).long() + (image[1] > 127).long()
        mask[:3] = 255
        return {"image": image, "label": torch.tensor(index % 3), "mask": mask}


class Textures(LightningDataModule):
    def train_dataloader(self) -> DataLoader:
        return training_loader(Items(), 2, 0, 0, self.trainer)

    def val_dataloader(self) -> DataLoader:
        return evaluation_loader(Items(), 3, 0, self.trainer)

    test_dataloader = val_dataloader
    predict_dataloader = val_dataloader


def codec(seed: int = 0) -> CompressionNet:
    return settled(seed, **SMALL)


def network(kind: type = CodeResNet, **options: Any) -> Any:
    torch.manual_seed(1)
    sizes = {"channels": 3, "depth": 39} if kind in (CodeResNet, CodeResNetD) else {}
    return kind(**({"num_classes": 3, "width": 2} | sizes | options))


def quiet(module: LightningModule) -> Any:
    module.trainer = trainer()
    module.log = module.log_dict = lambda *_, **__: None  # type: ignore[method-assign,assignment]
    return module


def trainer(**options: Any) -> Trainer:
    plain = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    plain |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "devices": 1}
    return Trainer(**(plain | options))  # type: ignore[arg-type]


def batch(size: int = 4) -> dict[str, Any]:
    items = [Items()[k] for k in range(size)]
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


def codec_file(path: Path, seed: int = 0, **sizes: int) -> str:
    """What stage 1 leaves, as far as later stages look."""
    made = settled(seed, **(SMALL | sizes))
    described = {"class_path": "modules.compressed_domain.nets.CompressionNet", "init_args": SMALL | sizes}
    state = {f"network.{name}": value for name, value in made.state_dict().items()}
    torch.save({"hyper_parameters": {"network": described}, "state_dict": state}, path)
    return str(path)


def saved(module: LightningModule, path: Path) -> str:
    content: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(content)
    torch.save(content, path)
    return str(path)


def test_the_loss_of_the_codec_by_hand() -> None:
    module, data = quiet(CompressionModel(codec(), target_entropy=0.5, beta=7.0)).eval(), batch()
    x = data["image"].float()
    out = module.network(x)
    p = np.bincount(out.code.symbols.flatten(), minlength=4) / out.code.symbols.numel()
    bits = -sum(q * np.log2(q) for q in p if q)
    assert bits > 0.6
    expected = float((out.x_hat - x).square().mean().detach()) + 7 * (bits - 0.5)
    assert float(module.training_step(data, 0).detach()) == pytest.approx(expected, rel=1e-5)
    module.target_entropy = 2.0
    assert float(module.training_step(data, 0).detach()) == pytest.approx(expected - 7 * (bits - 0.5), rel=1e-5)
    with pytest.raises(ValueError, match="target_entropy must be at least 0, got -1"):
        CompressionModel(codec(), target_entropy=-1)
    with pytest.raises(ValueError, match="beta must be at least 0"):
        CompressionModel(codec(), beta=-1.0)


def test_the_joint_loss_by_hand_reaches_the_encoder_by_the_classifier() -> None:
    module, data = quiet(JointModel(codec(), network(), gamma=0.25, target_entropy=0.5, beta=7.0)).eval(), batch()
    alone = quiet(CompressionModel(module.network, target_entropy=0.5, beta=7.0)).eval()
    logits = module.classifier(module.network.encode(data["image"].float()).values)
    expected = 0.25 * alone.training_step(data, 0) + cross_entropy(logits, data["label"])
    assert float(module.training_step(data, 0).detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    module.gamma = 0.0
    module.training_step(data, 0).backward()
    assert module.network.encoder.layers[0].weight.grad.abs().max() > 0
    assert module.network.quantizer.levels.grad.abs().max() > 0
    torch.testing.assert_close(module.predict_step(data, 0), logits.softmax(1))
    with pytest.raises(ValueError, match="needs a classifier on codes, not RGBResNet"):
        JointModel(codec(), network(RGBResNet))
    with pytest.raises(ValueError, match=r"gamma must be at least 0, got -0\.1"):
        JointModel(codec(), network(), gamma=-0.1)


def test_sizes_and_labels_that_do_not_fit_are_named() -> None:
    message = r"code has 3 channels, CodeResNet\w* takes 4: make their init_args.channels equal"
    for kind, system in ((CodeResNet, Classifier), (CodeResNetD, Segmenter)):
        with pytest.raises(ValueError, match=message):
            system(network=network(kind, channels=4), codec=codec())
    with pytest.raises(ValueError, match=message):
        JointModel(codec(), network(channels=4))
    data = batch(3)
    modules = [Classifier(network=network(num_classes=2), codec=codec()), JointModel(codec(), network(num_classes=2))]
    modules.append(Segmenter(network=network(CodeResNetD, num_classes=2), codec=codec()))
    for module in modules:
        with pytest.raises(
            ValueError, match=r"a label is 2, the network has 2 classes: set its init_args\.num_classes"
        ):
            module.on_before_batch_transfer(dict(data), 0)
    for module in (Classifier(network=network(), codec=codec()), JointModel(codec(), network())):
        assert module.on_before_batch_transfer(data, 0) is data


def test_any_size_is_padded_by_its_border_and_counted_by_its_own_pixels() -> None:
    image = torch.from_numpy(TEXTURE[:2]).permute(0, 3, 1, 2)[..., :29, :27].contiguous()
    x = padded(image)
    assert x.shape == (2, 3, 32, 32) and torch.equal(x[..., :29, :27], image.float())
    assert torch.equal(x[..., 29:, :27], image[..., -1:, :].float().expand(-1, -1, 3, -1))
    assert torch.equal(x[..., 27:], x[..., 26:27].expand(-1, -1, -1, 5))
    module = quiet(CompressionModel(codec())).eval()
    module.log_figures("val", image)
    out = module.network(x)
    p = np.bincount(out.code.symbols.flatten()) / out.code.symbols.numel()
    bits = -sum(q * np.log2(q) for q in p if q) * out.code.symbols.numel()
    assert float(module.val_figures.bpp.compute()) == pytest.approx(bits / (2 * 29 * 27), rel=1e-5)
    error = (out.x_hat.round().clamp(0, 255)[..., :29, :27] - image).square().mean((1, 2, 3))
    expected = float((10 * torch.log10(255**2 / error)).mean().detach())
    assert float(module.val_figures.psnr_db.compute()) == pytest.approx(expected, rel=1e-4)
    module.on_test_start()
    module.log_files(image)
    sizes = [len(pack(module.codec().compress(pixels))) for pixels in image.permute(0, 2, 3, 1).numpy()]
    assert float(module.test_file_bpp.compute()) == pytest.approx(8 * np.mean(sizes) / (29 * 27), rel=1e-5)
    drawn = module.draws(image, 3)
    assert drawn.shape == (3, 2, 3, 29, 27) and drawn.dtype == torch.uint8
    assert torch.equal(drawn[2], out.x_hat.round().clamp(0, 255)[..., :29, :27].byte())


@pytest.mark.parametrize("kind", [CodeResNet, RGBResNet])
def test_what_a_network_sees(kind: type) -> None:
    frozen, data = codec(), batch()
    module = quiet(Classifier(network=network(kind), codec=frozen)).train()
    seen = module.seen(data["image"])
    with torch.no_grad():
        code = frozen.encode(data["image"].float()).values
        x_hat = frozen.decode(code).round().clamp(0, 255)
    assert torch.equal(seen, code if kind is CodeResNet else x_hat) and not seen.requires_grad
    original = quiet(Classifier(network=network(RGBResNet)))
    assert torch.equal(original.seen(data["image"]), data["image"].float())
    with pytest.raises(ValueError, match="need the codec: give its sizes as codec"):
        Classifier(network=network())
    with pytest.raises(ValueError, match="need the codec"):
        Classifier(network=network(RGBResNet), codec_weights="x.ckpt")


def test_the_codec_stays_as_it_is(tmp_path: Path) -> None:
    """In eval mode, without gradients, in no optimizer and no state_dict; the network learns."""
    module = Classifier(network=network(), codec=codec(1), codec_weights=codec_file(tmp_path / "codec.ckpt"))
    run = trainer(max_steps=3)
    before = {name: value.clone() for name, value in codec().state_dict().items()}
    head = module.network.classifier.weight.detach().clone()
    run.fit(module, datamodule=Textures())
    after = module.frozen_codec().state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not torch.equal(module.network.classifier.weight, head)
    held = {id(p) for group in run.optimizers[0].param_groups for p in group["params"]}
    assert held == {id(p) for p in module.network.parameters()} and not module.frozen_codec().training
    assert not any(name.startswith("codec") for name in module.state_dict())
    module.eval()
    [result] = run.validate(module, datamodule=Textures(), verbose=False)
    wrong = [
        float((module(item["image"][None]).argmax() != item["label"]).float())
        for item in map(Items().__getitem__, range(10))
    ]
    assert result["val/error"] == pytest.approx(100 * np.mean(wrong)) and result["val/top5_error"] == 0
    rows = run.predict(module, datamodule=Textures())
    torch.testing.assert_close(torch.cat(rows).sum(1), torch.ones(10))  # type: ignore[arg-type]


def test_checkpoints_carry_the_codec(tmp_path: Path) -> None:
    module = Classifier(network=network(), codec=codec())
    content: dict[str, Any] = {}
    module.on_save_checkpoint(content)
    assert content["codebook"]["model"] == fingerprint(codec()).hex() and content["codebook"]["channels"] == 3
    assert torch.equal(content["codebook"]["centers"], codec().quantizer.levels.detach())
    other = Classifier(network=network(), codec=codec(1))
    other.on_load_checkpoint(content)
    assert fingerprint(other.frozen_codec()) == fingerprint(codec())
    resumed = Classifier(network=network(), codec=codec(), codec_weights=codec_file(tmp_path / "other.ckpt", seed=1))
    resumed.setup("fit")
    with pytest.raises(CheckpointError, match="was trained with another codec than codec_weights names"):
        resumed.on_load_checkpoint(content)
    with pytest.raises(CheckpointError, match="it has no codec"):
        other.on_load_checkpoint({})
    wide = Classifier(network=network(channels=5), codec=settled(0, **(SMALL | {"channels": 5})))
    with pytest.raises(CheckpointError, match="codec has other sizes than codec says"):
        wide.on_load_checkpoint(content)
    original: dict[str, Any] = {}
    Classifier(network=network(RGBResNet)).on_save_checkpoint(original)
    assert original == {}


def test_weights_of_earlier_stages(tmp_path: Path) -> None:
    weights = codec_file(tmp_path / "codec.ckpt")
    first = saved(Classifier(network=network(), codec=codec()), tmp_path / "code.ckpt")
    joint = saved(JointModel(codec(), network()), tmp_path / "joint.ckpt")
    for path in (first, joint):
        torch.manual_seed(7)
        start = {"codec": codec(1), "codec_weights": weights, "start_weights": path}
        segmenter = Segmenter(network=CodeResNetD(3, 5, 39, 2), **start)
        head = segmenter.network.head.branches[0].weight.detach().clone()
        segmenter.setup("fit")
        own, wanted = segmenter.network.state_dict(), network().state_dict()
        features = [name for name in own if name.startswith("features.")]
        assert features and all(torch.equal(own[name], wanted[name]) for name in features)
        assert torch.equal(segmenter.network.head.branches[0].weight, head)
    again = Classifier(network=CodeResNet(3, 3, 39, 2), **start)
    again.setup("fit")
    assert torch.equal(again.network.classifier.weight, network().classifier.weight)

    def refused(module: LightningModule, message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            module.setup("fit")

    refused(Segmenter(network=CodeResNetD(3, 5, 39, 4), **start), "holds no CodeResNetD of these sizes: features")
    refused(Segmenter(network=CodeResNetD(3, 5, 51, 2), **start), "holds no CodeResNetD of these sizes: features")
    deep = saved(Classifier(network=network(depth=51), codec=codec()), tmp_path / "deep.ckpt")
    refused(Segmenter(network=network(CodeResNetD), **(start | {"start_weights": deep})), r"features\.1\.6")
    stranger = codec_file(tmp_path / "other.ckpt", seed=1)
    refused(
        Segmenter(network=network(CodeResNetD), **(start | {"codec_weights": stranger})), "trained with another codec"
    )
    refused(Segmenter(network=network(CodeResNetD), **(start | {"start_weights": weights})), "holds no network of this")
    wide = codec_file(tmp_path / "wide.ckpt", channels=5)
    refused(Classifier(network=network(), codec=codec(), codec_weights=wide), "channels 5, not")
    torch.save({"state_dict": {}}, tmp_path / "none.ckpt")
    with pytest.raises(ValueError, match="neither exported weights nor"):
        Classifier(network=network(), codec=codec(), codec_weights=str(tmp_path / "none.ckpt")).setup("fit")
    with pytest.raises(ValueError, match=r"the codec is not trained: give --model\.init_args\.codec_weights"):
        Classifier(network=network(), codec=codec()).setup("fit")
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        Classifier(network=network(), codec=codec(), codec_weights="missing.ckpt").setup("fit")
    Classifier(network=network(), codec=codec()).setup("test")  # a checkpoint brings its own
    with pytest.raises(ValueError, match="joint training needs codec_weights, a run of stage 1, and start_weights"):
        JointModel(codec(), network(), codec_weights=weights).setup("fit")
    module = JointModel(codec(1), network(), codec_weights=weights, start_weights=first)
    module.setup("fit")
    assert fingerprint(module.network) == fingerprint(codec())
    original = saved(Classifier(network=network(RGBResNet)), tmp_path / "rgb.ckpt")
    plain = Segmenter(network=network(RGBResNetD), start_weights=original)
    plain.setup("fit")
    assert torch.equal(plain.network.features[1].weight, network(RGBResNet).features[1].weight)


@pytest.mark.parametrize("freeze", [True, False])
def test_segmentation_learns_at_three_rates_and_keeps_its_norms(freeze: bool) -> None:
    module = Segmenter(
        network=network(CodeResNetD), codec=codec(), freeze_norm=freeze,
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.9),
    )  # fmt: skip
    [optimizer] = [module.configure_optimizers()]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.1, 0.2])
    counts = [len(group["params"]) for group in optimizer.param_groups]
    norms = sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in module.network.modules())
    convolutions = sum(isinstance(layer, torch.nn.Conv2d) for layer in module.network.features.modules())
    assert counts == [convolutions + (0 if freeze else 2 * norms), 4, 4]
    module.train()
    modes = {layer.training for layer in module.network.modules() if isinstance(layer, torch.nn.BatchNorm2d)}
    assert modes == {not freeze} and module.network.head.training
    module, data = quiet(module), batch()
    loss = module.training_step(data, 0)
    module.eval()
    logits = module(data["image"])
    assert logits.shape == (4, 3, 32, 32)
    if freeze:
        expected = cross_entropy(logits, data["mask"], ignore_index=255)
        torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_norms_stay_in_a_fit(freeze: bool, tmp_path: Path) -> None:
    sgd = {"optimizer": lambda groups: torch.optim.SGD(groups, lr=0.01)}
    weights = codec_file(tmp_path / "codec.ckpt")
    start = {"codec": codec(), "codec_weights": weights, "freeze_norm": freeze}
    if freeze:
        with pytest.raises(ValueError, match="freeze_norm keeps the norms of start_weights"):
            Segmenter(network=network(CodeResNetD), **start).setup("fit")
        start["start_weights"] = saved(Classifier(network=network(), codec=codec()), tmp_path / "code.ckpt")
    module = Segmenter(network=network(CodeResNetD), **start, **sgd)
    norm, kernel = module.network.features[0][0].norm1, module.network.features[0][0].conv1
    before = [value.clone() for value in norm.state_dict().values()], kernel.weight.detach().clone()
    trainer(max_epochs=2, limit_train_batches=1).fit(module, datamodule=Textures())
    same = [torch.equal(a, b) for a, b in zip(norm.state_dict().values(), before[0], strict=True)]
    assert same == [freeze] * 5 and not torch.equal(kernel.weight, before[1])


def test_miou_is_that_of_the_true_pixels() -> None:
    module = quiet(Segmenter(network=network(CodeResNetD), codec=codec())).eval()
    item = batch(2)
    cut = {"image": item["image"][..., :29, :27], "mask": item["mask"][..., :29, :27]}
    module.validation_step(cut, 0)
    assert int(module.val_miou.confusion.sum()) == 2 * 29 * 27
    predicted = module(cut["image"])[..., :29, :27].argmax(1)
    kept = cut["mask"] != 255
    right = [((predicted == k) & (cut["mask"] == k) & kept).sum() for k in range(3)]
    union = [(((predicted == k) | (cut["mask"] == k)) & kept).sum() for k in range(3)]
    expected = 100 * np.mean([float(r / u) for r, u in zip(right, union, strict=True) if u])
    assert float(module.val_miou.compute()) == pytest.approx(expected, rel=1e-5)
    module.test_step(cut, 0)
    assert float(module.test_miou.compute()) == pytest.approx(expected, rel=1e-5)


def test_schedules_count_what_they_are_told() -> None:
    def schedule(optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.StepLR(optimizer, 2)

    for interval in ("step", "epoch"):
        options: dict[str, Any] = {"lr_scheduler": schedule, "lr_interval": interval}
        modules = [CompressionModel(codec(), **options), JointModel(codec(), network(), **options)]
        modules += [kind(network=network(n), codec=codec(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1), **options)
                    for kind, n in ((Classifier, CodeResNet), (Segmenter, CodeResNetD))]  # fmt: skip
        for module in modules:
            assert module.configure_optimizers()["lr_scheduler"]["interval"] == interval
    assert isinstance(CompressionModel(codec()).configure_optimizers(), torch.optim.Adam)


def systems(tmp_path: Path) -> dict[str, LightningModule]:
    weights = codec_file(tmp_path / "codec.ckpt")
    code = saved(Classifier(network=network(), codec=codec()), tmp_path / "code.ckpt")
    start = {"codec_weights": weights, "start_weights": code}
    sgd = {"optimizer": lambda groups: torch.optim.SGD(groups, lr=0.01)}
    return {
        "codec": CompressionModel(codec(1)),
        "classifier": Classifier(network=network(), codec=codec(1), codec_weights=weights, **sgd),
        "rgb": Classifier(network=network(RGBResNet), codec=codec(1), codec_weights=weights, **sgd),
        "segmenter": Segmenter(network=network(CodeResNetD), codec=codec(1), **start, **sgd),
        "joint": JointModel(codec(1), network(), **start),
    }


@pytest.mark.parametrize("kind", ["codec", "classifier", "rgb", "segmenter", "joint"])
def test_two_processes(kind: str, tmp_path: Path) -> None:
    """They train; figures of ten images shared by two processes are those of one, real files included."""
    module = systems(tmp_path)[kind].train()
    before = [p.detach().clone() for p in module.parameters()]
    two = {"devices": 2, "strategy": "ddp_fork"}
    run = trainer(max_steps=2, limit_val_batches=0, **two)
    run.fit(module, datamodule=Textures())
    assert all(torch.isfinite(p).all() for p in module.parameters())
    assert not all(torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True))
    [shared] = trainer(**two).test(module, datamodule=Textures(), verbose=False)
    [one] = trainer().test(module, datamodule=Textures(), verbose=False)
    assert one == pytest.approx(shared, rel=1e-4) and len(one) >= 1
    names = {"codec": {"bpp", "psnr_db", "file_bpp"}, "segmenter": {"miou"}, "joint": {"bpp", "psnr_db", "file_bpp"}}
    errors = {"error", "top5_error"}
    expected = names.get(kind, set()) | (errors if kind in ("classifier", "rgb", "joint") else set())
    assert {name.removeprefix("test/") for name in one} == expected


def test_the_rate_of_two_processes_is_that_of_their_common_batch(tmp_path: Path) -> None:
    class Watched(CompressionModel):
        def on_train_end(self) -> None:
            if self.global_rank == 0:
                (tmp_path / "bits").write_text(str(float(self.trainer.callback_metrics["train/entropy"])))

    run = trainer(max_steps=1, limit_val_batches=0, devices=2, strategy="ddp_fork")
    module = Watched(codec(), optimizer=lambda p: torch.optim.SGD(p, lr=0.0)).train()
    order = [int(draw[1]) for rank in range(2) for draw in list(EpochDraws(rank))[:2]]
    run.fit(module, datamodule=Textures())
    reference = codec().train()
    symbols = [reference.encode(torch.stack([Items()[k]["image"] for k in part]).float()).symbols
               for part in (order[:2], order[2:])]  # fmt: skip
    p = np.bincount(torch.cat(symbols).flatten()) / (2 * symbols[0].numel())
    bits = -sum(q * np.log2(q) for q in p if q)
    assert float((tmp_path / "bits").read_text()) == pytest.approx(bits, rel=1e-5)  # one half alone is 7e-5 away


class EpochDraws:
    """What a rank of two draws first."""

    def __init__(self, rank: int) -> None:
        from datamodules.loading.loaders import EpochSampler

        self.sampler = EpochSampler(Items(), 0, rank, 2)

    def __iter__(self) -> Any:
        return iter(self.sampler)
