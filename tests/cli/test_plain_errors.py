"""Messages of others as one line: which ones, and that anything else stays a traceback."""

import inspect

import pytest
import torch
from pytorch_lightning.strategies import ddp
from torch.utils.data import DataLoader, Dataset

from cli.plain_errors import UNUSED, misfit, one_line, one_line_errors, with_suggestion


def said(error: Exception, capsys: pytest.CaptureFixture) -> str:
    with pytest.raises(SystemExit) as stop, one_line_errors():
        raise error
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_parameters_that_take_no_part(capsys: pytest.CaptureFixture) -> None:
    source = inspect.getsource(ddp)
    assert UNUSED in source.replace('"\n', "").replace('"', "")  # what Lightning says
    line = said(RuntimeError(f"It looks like your LightningModule has {UNUSED} returned by ..."), capsys)
    assert "--trainer.strategy ddp_find_unused_parameters_true" in line and line.count("\n") == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layer", [torch.nn.Conv2d(1, 1, 1), torch.nn.Linear(1, 1), torch.nn.LSTM(1, 1)], ids=repr)
def test_weights_of_another_type(layer: torch.nn.Module, dtype: torch.dtype, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises((RuntimeError, ValueError)) as caught:
        layer.to(dtype)(torch.ones(1, 1, 1))
    line = said(caught.value, capsys)
    assert line.count("\n") == 1 and ("bf16-mixed or 32-true" in line or isinstance(caught.value, ValueError))


@pytest.mark.parametrize(
    "error",
    [
        TypeError("`devices` selected with `CPUAccelerator` should be an int > 0."),
        ModuleNotFoundError("Requirement 'torch_xla>=1.13' not met. HINT: Try running\n `pip install`"),
    ],
    ids=repr,
)
def test_devices_that_are_not_here(error: Exception, capsys: pytest.CaptureFixture) -> None:
    line = said(error, capsys)
    assert line.startswith(f"error: {str(error)[:30]}") and line.count("\n") == 1


def test_weights_of_another_network(capsys: pytest.CaptureFixture) -> None:
    message = (
        'Error(s) in loading state_dict for Toy:\n\tMissing key(s) in state_dict: "a.b", "c". \n\t'
        'Unexpected key(s) in state_dict: "d". \n\tsize mismatch for e.f: copying a param with shape [1]'
    )
    expected = "the checkpoint does not fit Toy: weights 2 missing (a.b), 1 unexpected (d), 1 of another shape (e.f)"
    assert misfit(message).startswith(expected)
    assert expected in said(RuntimeError(message), capsys)


@pytest.mark.parametrize("kind", [FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError])
def test_paths_of_the_wrong_kind(kind: type[OSError], capsys: pytest.CaptureFixture) -> None:
    assert said(kind(13, "Permission denied", "runs/a"), capsys) == "error: Permission denied: 'runs/a'\n"


class Unreadable(Dataset):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        try:
            raise type(self.error)("inner")
        except type(self.error) as error:
            raise self.error from error


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a cannot be read (b: c)"), "error: a cannot be read (b: c)\n"),
        (FileNotFoundError(2, "no such file", "a"), "error: no such file: 'a'\n"),
    ],
)
def test_what_a_worker_process_raised(error: Exception, line: str, workers: int, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit), one_line_errors():
        next(iter(DataLoader(Unreadable(error), num_workers=workers)))
    assert capsys.readouterr().err == line


def test_our_own_faults_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (RuntimeError("out of memory"), TypeError("x"), KeyError("x")):
        with pytest.raises(type(error)), one_line_errors():
            raise error
    monkeypatch.setenv("PARSIMONY_DEBUG", "1")
    for error in (ValueError("x"), RuntimeError("Error(s) in loading state_dict for Toy: x")):
        with pytest.raises(type(error)), one_line_errors():
            raise error


def test_lines_are_joined_once_and_noise_is_left_out() -> None:
    assert one_line("a\n  - b\nSubtypes: c\na\n") == "a b"
    assert one_line("Expected a <class 'int'>\nGiven value: many") == "Expected a <class 'int'>, not many"


def test_the_nearest_name() -> None:
    assert with_suggestion("unrecognized arguments: --max_epoch", ["max_epochs", "x"]).endswith(
        "(did you mean max_epochs?)"
    )
    assert with_suggestion("unrecognized arguments: --zzz", ["max_epochs"]) == "unrecognized arguments: --zzz"
