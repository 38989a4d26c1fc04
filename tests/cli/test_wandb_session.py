"""wandb never asks and never sees the agent's own parameter."""

import json
import os
from pathlib import Path

import pytest

from cli.wandb_session import is_logged_in, session, without_agent_parameters


def test_the_agents_parameter_is_taken_out() -> None:
    Path("a.json").write_text(json.dumps({"model.lr": 1, "_wandb": {"x": 2}}))
    Path("b.json").write_text(json.dumps({"model.lr": 1}))
    words = without_agent_parameters(
        ["fit", "--config", "a.json", "--config=a.json", "--config", "b.json", "--_wandb={}"]
    )
    assert words[0] == "fit" and words[4:] == ["--config", "b.json"]
    for path in (words[2], words[3].removeprefix("--config=")):
        assert json.loads(Path(path).read_text()) == {"model.lr": 1}


def test_the_command_line_is_cleaned_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "fit", "--_wandb={'a': 1}"])
    assert without_agent_parameters(None) == ["fit"]
    monkeypatch.setattr("sys.argv", ["train.py", "fit"])
    assert without_agent_parameters(None) is None


def test_offline_unless_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRC", str(Path("netrc").resolve()))
    monkeypatch.delenv("WANDB_MODE")
    assert not is_logged_in()
    with session():
        assert os.environ["WANDB_MODE"] == "offline"
    assert "WANDB_MODE" not in os.environ
    Path("netrc").write_text("machine api.wandb.ai login user password " + "0" * 40 + "\n")
    assert is_logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not is_logged_in()
