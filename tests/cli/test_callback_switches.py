"""What a run leaves and prints with Lightning's switches for callbacks off."""

import pytest

from tests.test_train import RUNS, fit, result, toy

assert toy  # a fixture


@pytest.mark.parametrize("command", ["fit", "test"])
def test_no_progress_bar(command: str, capsys: pytest.CaptureFixture) -> None:
    fit("--trainer.enable_progress_bar=false", command=command)
    out = capsys.readouterr().out
    assert "epoch 0 step" not in out and "epoch 1 step" not in out and "run folder" in out
    if command == "fit":
        assert (RUNS / "000" / "checkpoints" / "best.ckpt").is_file()  # the other callbacks are there
        assert "epoch 1 step" in with_bar(capsys)


def with_bar(capsys: pytest.CaptureFixture) -> str:
    fit()
    return capsys.readouterr().out


def test_no_checkpoints() -> None:
    fit("--trainer.enable_checkpointing=false", "--trainer.enable_progress_bar=false")
    assert not [*RUNS.rglob("*.ckpt")]
    assert result()["steps"] == 8 and result()["best_path"] is None
    fit("--config", str(RUNS / "000" / "config.fit.yaml"))  # the saved config says the same
    assert not [*RUNS.rglob("*.ckpt")] and result("001")["steps"] == 8
