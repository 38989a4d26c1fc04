"""Language models: exact perplexity, states that are carried, a teacher that reads along."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from callbacks.rng_state import RngState
from datamodules.text.token_streams import Windows, evaluation_streams, training_streams, training_windows
from modules.born_again.language_module import BornAgainLanguageModel
from modules.born_again.losses import ban_with_labels
from modules.born_again.perplexity import Perplexity
from modules.components.frozen import Frozen
from modules.components.language import LSTMLanguageModel

V = 11
TEXT = torch.randint(V, (101,), generator=torch.Generator().manual_seed(0))


def model(seed: int = 0) -> LSTMLanguageModel:
    torch.manual_seed(seed)
    return LSTMLanguageModel(V, units=6, layers=2, dropout=0.5)


def module(network: LSTMLanguageModel, **options: object) -> BornAgainLanguageModel:
    result = BornAgainLanguageModel(lambda: network, **options)  # type: ignore[arg-type]
    result.log = lambda *args, **kwargs: None  # type: ignore[method-assign,assignment]
    return result


def windows(streams: int, steps: int) -> list[dict[str, Tensor]]:
    dataset = Windows(evaluation_streams(TEXT, 0, streams), steps)
    return [dataset[i] for i in range(len(dataset))]


def float64_perplexity(network: LSTMLanguageModel) -> float:
    """Token by token through the whole text, with numpy-like sums in double precision."""
    network = network.double().eval()
    state, before, nats = None, torch.tensor([[0]]), 0.0
    with torch.no_grad():
        for token in TEXT.tolist():
            logits, state = network(before, state)
            row = logits[0, 0]
            nats += math.log(float((row - row[token]).exp().sum()))
            before = torch.tensor([[token]])
    network.float()
    return math.exp(nats / len(TEXT))


@pytest.mark.parametrize("steps", [1, 7, 35, 101, 200])
def test_perplexity_is_that_of_the_whole_text(steps: int) -> None:
    network = model()
    expected = float64_perplexity(network)
    system = module(network.eval())
    with torch.no_grad():
        for number, batch in enumerate(windows(1, steps)):
            system.validation_step(batch, number)
    assert float(system.val_perplexity.compute()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("streams", [1, 2, 3, 10, 64])
def test_every_token_counts_once_whatever_the_batch(streams: int) -> None:
    """A network that ignores what it reads has one perplexity, whatever is cut where."""
    network = model().eval()
    torch.nn.init.zeros_(network.decoder.weight)
    torch.nn.init.normal_(network.decoder.bias)
    system = module(network)
    with torch.no_grad():
        for number, batch in enumerate(windows(streams, 7)):
            system.validation_step(batch, number)
    logs = network.decoder.bias.detach().double().log_softmax(0)
    assert int(system.val_perplexity.tokens) == len(TEXT)
    assert float(system.val_perplexity.compute()) == pytest.approx(math.exp(-float(logs[TEXT].mean())), rel=1e-6)


def test_states_are_carried_and_reset() -> None:
    network = model().eval()
    system = module(network)
    streams = training_streams(TEXT, 0, 4)
    whole = network(streams.tokens)[0]
    dataset = Windows(streams, 9)
    for _ in range(2):  # a second epoch starts with a reset
        parts = [system.read("train", network, dataset[i]) for i in range(len(dataset))]
        torch.testing.assert_close(torch.cat(parts), whole)


def test_gradients_end_at_the_window() -> None:
    system = module(model())
    dataset = Windows(training_streams(TEXT, 0, 4), 9)
    system.training_step(dataset[0], 0)
    system.training_step(dataset[1], 1).backward()  # would fail if it reached back into the first
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss = system.training_step(dataset[2], 2)
        loss.backward()
        loss.backward()


def test_the_teacher_reads_the_same_text_with_its_own_state() -> None:
    student, teacher = model(0).eval(), model(1).eval()
    system = module(student, sum_steps=False)
    system.teacher = Frozen(teacher)
    streams = training_streams(TEXT, 0, 4)
    dataset = Windows(streams, 9)
    losses = [system.training_step(dataset[i], i) for i in range(len(dataset))]
    s, t = student(streams.tokens)[0], teacher(streams.tokens)[0]
    for i, loss in enumerate(losses):
        rows = slice(9 * i, 9 * i + 9)
        torch.testing.assert_close(loss, ban_with_labels(s[rows], t[rows], streams.targets[rows]))


def test_the_sum_over_steps_is_the_mean_times_their_number() -> None:
    dataset = Windows(training_streams(TEXT, 0, 4), 9)
    network = model().eval()
    mean = module(network, sum_steps=False).training_step(dataset[0], 0)
    torch.testing.assert_close(module(network).training_step(dataset[0], 0), 9 * mean)


def test_ensembles_average_probabilities() -> None:
    networks = {g: Frozen(model(g)) for g in (1, 2)}
    system = module(model())
    scores = system.evaluate(networks, {"gen1": [1], "ens2": [1, 2]}, windows(1, 7))
    assert float(scores["gen1/perplexity"]) == pytest.approx(float64_perplexity(model(1)), rel=1e-6)
    tokens = torch.cat([torch.tensor([0]), TEXT[:-1]]).unsqueeze(1)
    mean = sum(networks[g](tokens)[0][:, 0].double().softmax(1) for g in (1, 2)) / 2
    nats = -mean[torch.arange(len(TEXT)), TEXT].log().mean()  # type: ignore[index]
    assert float(scores["ens2/perplexity"]) == pytest.approx(math.exp(float(nats)), rel=1e-6)


def test_what_a_member_holds_impossible_leaves_its_perplexity_finite() -> None:
    networks = {g: Frozen(model(g)) for g in (1, 2)}
    with torch.no_grad():
        networks[1].network.decoder.bias[3] = -200.0  # exp of it is no float32
    scores = module(model()).evaluate(networks, {"gen1": [1], "ens2": [1, 2]}, windows(1, 7))
    assert all(math.isfinite(float(score)) for score in scores.values())
    assert float(scores["gen1/perplexity"]) == pytest.approx(float64_perplexity(networks[1].network), rel=1e-6)


class Diary(Callback):
    """The losses, and a checkpoint behind the third window of the second epoch."""

    def __init__(self, path: Path) -> None:
        self.path, self.losses = path, []  # type: ignore[var-annotated]

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))
        if (trainer.current_epoch, batch_idx) == (1, 2):
            trainer.save_checkpoint(self.path)


def read_through(path: Path, resume: bool) -> list[float]:
    """Three epochs of a student and a teacher, or what is left of them."""
    system = BornAgainLanguageModel(model, optimizer=lambda p: torch.optim.SGD(p, lr=0.5))
    system._hparams.clear()  # without the command line, an optimizer is no plain value
    system.teacher = Frozen(model(1))
    diary = Diary(path)
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[RngState(), diary],
        default_root_dir=path.parent,
    )
    loader = training_windows(TEXT, 0, 4, 5, trainer)
    trainer.fit(system, loader, ckpt_path=path if resume else None, weights_only=True)
    return diary.losses


def test_a_run_goes_on_in_the_middle_of_a_text(tmp_path: Path) -> None:
    whole = read_through(tmp_path / "middle.ckpt", resume=False)
    assert len(whole) == 3 * 5
    assert read_through(tmp_path / "middle.ckpt", resume=True) == whole[5 + 3 :]


def test_a_resumed_state_serves_the_middle_of_a_text_alone() -> None:
    """Not an epoch's first window, nor a run with other streams."""
    system = module(model().eval())
    dataset = Windows(training_streams(TEXT, 0, 4), 9)
    for number, streams, is_used in ((0, 4, False), (1, 4, True), (1, 3, False)):
        batch = dataset[number] | {"reset": True}
        system.resumed = {"train": (torch.ones(2, streams, 6), torch.ones(2, streams, 6))}
        logits = system.read("train", system.student, batch, number)
        assert torch.equal(logits, system.student(batch["tokens"])[0]) != is_used


def test_the_schedule_looks_at_the_perplexity_after_an_epoch() -> None:
    system = BornAgainLanguageModel(model, lr_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau)
    schedule = system.configure_optimizers()["lr_scheduler"]
    assert (schedule["interval"], schedule["monitor"]) == ("epoch", "val/perplexity")


def test_a_prediction_of_a_text_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="its perplexity: test prints it"):
        BornAgainLanguageModel(model).setup("predict")


def test_perplexity_keeps_double_sums_in_half_precision() -> None:
    metric = Perplexity().half()
    metric.update(torch.log_softmax(torch.zeros(1, 1, V), -1), torch.zeros(1, 1, dtype=torch.int64))
    assert metric.nats.dtype == torch.float64
    assert float(metric.compute()) == pytest.approx(V)
