"""Streams and windows: every token counted once, the state carried rightly, on any number of processes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from datamodules.text.token_streams import (
    IGNORED,
    evaluation_streams,
    evaluation_windows,
    training_streams,
    training_windows,
)

V, EOS = 7, 2


def random_text(length: int) -> Tensor:
    return torch.randint(V, (length,), generator=torch.Generator().manual_seed(length))


def collected(loader: Any) -> tuple[Tensor, Tensor, list[bool]]:
    """All windows one below the other, and their resets."""
    batches = list(loader)
    tokens, targets = (torch.cat([batch[key] for batch in batches]) for key in ("tokens", "targets"))
    return tokens, targets, [batch["reset"] for batch in batches]


def test_the_example() -> None:
    text = torch.arange(10)
    windows = list(training_windows(text, 99, 2, 3, None))
    assert windows[0]["tokens"].tolist() == [[99, 4], [0, 5], [1, 6]]
    assert windows[0]["targets"].tolist() == [[0, 5], [1, 6], [2, 7]]
    assert windows[1]["tokens"].tolist() == [[2, 7], [3, 8]]
    assert windows[1]["targets"].tolist() == [[3, 8], [4, 9]]
    assert [window["reset"] for window in windows] == [True, False]


@pytest.mark.parametrize(("length", "count", "window"), [(50, 4, 5), (53, 4, 5), (53, 1, 100), (7, 7, 3), (61, 3, 1)])
def test_training_streams_are_runs_of_the_text(length: int, count: int, window: int) -> None:
    text = random_text(length)
    tokens, targets, resets = collected(training_windows(text, EOS, count, window, None))
    run = length // count
    before = [EOS, *text.tolist()]
    for n in range(count):
        assert targets[:, n].tolist() == text[n * run : (n + 1) * run].tolist()
        assert tokens[:, n].tolist() == before[n * run : (n + 1) * run]
    assert resets == [True] + [False] * (-(-run // window) - 1)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 5, 60])
@pytest.mark.parametrize("window", [1, 7, 1000])
def test_evaluation_counts_every_token_once(world_size: int, count: int, window: int) -> None:
    text = random_text(53)
    before = torch.tensor([EOS, *text[:-1].tolist()])
    parts = []
    for rank in range(world_size):
        trainer: Any = type("Ranked", (), {"global_rank": rank, "world_size": world_size})
        tokens, targets, resets = collected(evaluation_windows(text, EOS, count, window, trainer))
        assert resets[0] and not any(resets[1:])
        parts.append((tokens, targets))
    assert len({part[0].shape for part in parts}) == 1
    pairs = []
    for column in range(parts[0][0].shape[1]):  # stream r + column * world belongs to rank r
        for tokens, targets in parts:
            kept = targets[:, column] != IGNORED
            pairs.append(torch.stack([tokens[kept, column], targets[kept, column]]))
    assert torch.equal(torch.cat(pairs, 1), torch.stack([before, text]))


class TinyGRU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(V, 6).double()
        self.gru = nn.GRU(6, 6).double()
        self.out = nn.Linear(6, V).double()

    def forward(self, tokens: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        hidden, state = self.gru(self.embedding(tokens), state)
        return self.out(hidden), state


def nats(network: TinyGRU, batches: Any) -> tuple[Tensor, int]:
    """Sum of -log p and number of the targets, the state carried as ``reset`` says."""
    total, count, state = torch.zeros((), dtype=torch.float64), 0, None
    with torch.no_grad():
        for batch in batches:
            logits, state = network(batch["tokens"], None if batch["reset"] else state)
            targets = batch["targets"].flatten()
            total += nn.functional.cross_entropy(logits.flatten(0, 1), targets, ignore_index=IGNORED, reduction="sum")
            count += int((targets != IGNORED).sum())
    return total, count


@torch.no_grad()
def plain_nats(network: TinyGRU, text: Tensor, before: int) -> float:
    """Token after token through the GRU's equations."""
    gru, state, total = network.gru, torch.zeros(6, dtype=torch.float64), 0.0
    for token, target in zip([before, *text[:-1].tolist()], text.tolist(), strict=True):
        x = gru.weight_ih_l0 @ network.embedding.weight[token] + gru.bias_ih_l0
        h = gru.weight_hh_l0 @ state + gru.bias_hh_l0
        reset, update = torch.sigmoid(x[:12] + h[:12]).split(6)
        state = (1 - update) * torch.tanh(x[12:] + reset * h[12:]) + update * state
        total -= float(torch.log_softmax(network.out(state), 0)[target])
    return total


@pytest.mark.parametrize("window", [1, 4, 29, 500])
def test_the_perplexity_of_one_stream_is_that_of_the_text_read_at_once(window: int) -> None:
    text, network = random_text(83), TinyGRU()
    total, count = nats(network, evaluation_windows(text, EOS, 1, window, None))
    assert count == 83
    assert float(total) == pytest.approx(plain_nats(network, text, EOS), rel=1e-12)


@pytest.mark.parametrize("count", [2, 4, 5])
def test_more_streams_only_lose_the_context_at_the_cuts(count: int) -> None:
    text, network = random_text(83), TinyGRU()
    total, number = nats(network, evaluation_windows(text, EOS, count, 6, None))
    run = -(-83 // count)
    cuts = range(0, 83, run)
    expected = sum(plain_nats(network, text[at : at + run], EOS if at == 0 else int(text[at - 1])) for at in cuts)
    assert number == 83
    assert float(total) == pytest.approx(expected, rel=1e-12)


def test_limits() -> None:
    with pytest.raises(ValueError, match="5 tokens cannot be cut into 6 streams: lower batch_size"):
        training_streams(random_text(5), EOS, 6)
    trainer: Any = type("Ranked", (), {"global_rank": 0, "world_size": 3})
    with pytest.raises(ValueError, match=r"batch_size 4, .* must be a multiple of the 3 processes"):
        training_windows(random_text(50), EOS, 4, 5, trainer)
    assert evaluation_streams(random_text(5), EOS, 8).targets.shape == (1, 8)


class Reader(pl.LightningModule):
    """Keeps what it is given; a state that a reset clears and each window changes goes into the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.state = 0.0
        self.trace: list[tuple[list, bool, float]] = []

    def training_step(self, batch: dict[str, Any]) -> Tensor:
        self.state = 0.5 * (0.0 if batch["reset"] else self.state) + float(batch["tokens"].float().mean())
        self.trace.append((batch["targets"].tolist(), batch["reset"], float(self.weight.detach())))
        return (self.weight - self.state) ** 2

    def validation_step(self, batch: dict[str, Any]) -> None:
        counted = batch["targets"][batch["targets"] != IGNORED]
        self.log_dict(
            {"val/sum": counted.sum().float(), "val/count": float(len(counted))},
            on_epoch=True,
            reduce_fx="sum",
            sync_dist=True,
            batch_size=1,
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Text(pl.LightningDataModule):
    """65 tokens in 4 streams of 16, windows of 3: six batches an epoch."""

    def train_dataloader(self) -> Any:
        return training_windows(random_text(65), EOS, 4, 3, self.trainer)

    def val_dataloader(self) -> Any:
        return evaluation_windows(random_text(65), EOS, 1, 10, self.trainer)


class SaveEveryStep(pl.Callback):
    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        trainer.save_checkpoint(f"batch{trainer.global_step}.ckpt")

    def on_train_epoch_end(self, trainer: pl.Trainer, *args: object) -> None:
        trainer.save_checkpoint(f"epoch{trainer.global_step}.ckpt")


def fit(resume: str | None = None, epochs: int = 3, **options: Any) -> tuple[Reader, pl.Trainer]:
    module = Reader()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, Text(), ckpt_path=resume, weights_only=False)
    return module, trainer


@pytest.mark.parametrize("options", [{}, {"limit_val_batches": 0}])
def test_a_resume_goes_on_with_the_next_window(options: dict) -> None:
    whole, trainer = fit(callbacks=SaveEveryStep(), **options)
    assert [reset for _, reset, _ in whole.trace] == ([True] + [False] * 5) * 3
    if not options:
        assert trainer.callback_metrics["val/count"] == 65
    second, _ = fit("epoch12.ckpt", **options)
    assert second.trace == whole.trace[12:]
    assert torch.equal(second.weight, whole.weight)
    second, _ = fit("batch8.ckpt", **options)
    assert [targets for targets, _, _ in second.trace] == [targets for targets, _, _ in whole.trace[8:]]
    assert [reset for _, reset, _ in second.trace] == [True] + [False] * 3 + [True] + [False] * 5


def test_two_processes_share_the_streams(tmp_path: Path) -> None:
    subprocess.run([sys.executable, __file__, str(tmp_path)], check=True, timeout=120)
    seen = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    targets = torch.cat([torch.stack([torch.tensor(part[i]) for part in seen], 2) for i in range(6)])
    assert torch.equal(targets.flatten(1).T.flatten(), random_text(65)[:64])
    for rank in range(2):
        counts = torch.load(tmp_path / f"val{rank}.pt", weights_only=True)
        assert counts == {"val/sum": float(random_text(65).sum()), "val/count": 65.0}


def fit_on_two_processes(folder: Path) -> None:
    torch.set_num_threads(1)
    module, trainer = fit(epochs=1, devices=2, strategy="ddp_fork", default_root_dir=folder, callbacks=Keep(folder))
    assert module.trace == [] and trainer is not None


class Keep(pl.Callback):
    """Writes what each rank saw."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, Reader)
        rank = trainer.global_rank
        torch.save([targets for targets, _, _ in module.trace], self.folder / f"{rank}.pt")
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        torch.save(metrics, self.folder / f"val{rank}.pt")


if __name__ == "__main__":
    fit_on_two_processes(Path(sys.argv[1]))
