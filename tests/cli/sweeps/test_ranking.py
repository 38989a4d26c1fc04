"""Ranked tables of trials and of any runs, as text, CSV and picture."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from cli.sweeps import plots, ranking
from cli.sweeps.ranking import Row, of_runs, ranked
from cli.sweeps.trial import FAILED, FINISHED, STOPPED, UNFINISHED


def row(score: float | None, state: str = FINISHED, **parameters: Any) -> Row:
    return Row(str(score), state, score, parameters)


@pytest.mark.parametrize(("maximize", "order"), [(False, [0.1, 9.0, 10.0]), (True, [10.0, 9.0, 0.1])])
def test_the_best_comes_first_and_then_what_has_no_number(maximize: bool, order: list[float]) -> None:
    rows = [row(9.0), row(math.nan), row(0.1), row(None, FAILED), row(10.0)]
    found = ranked(rows, "val/loss", maximize).rows
    assert [one.score for one in found[:3]] == order and {one.name for one in found[3:]} == {"nan", "None"}


def test_only_what_varies_is_shown(capsys: pytest.CaptureFixture) -> None:
    found = ranked([row(1.0, a=1, b=[2]), row(2.0, STOPPED, a=0.333333, b=[2]), row(None, FAILED, a=3)], "m", False)
    assert found.varied == ["a", "b"]
    assert ranked([row(1.0, a=1, b=2), row(2.0, a=1, b=3)], "m", False).varied == ["b"]
    ranking.print_table(found)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert "│ 1 │ 1.0   │ 1 " in lines[0] and "2 stopped" in lines[1] and "0.3333 " in lines[1]
    assert "│   │ None  │ failed" in lines[2]


def test_a_wide_table_shows_what_fits(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of different modules differ in dozens of options."""
    monkeypatch.setenv("COLUMNS", "80")
    shared = {"trainer.max_steps": 5, "model.class_path": "modules.a.Net", "model.lr": 0.1}
    own = {f"model.of_one{i}": i for i in range(20)}
    found = ranked([row(1.0, **shared, **own), row(2.0, **{name: f"{v}x" for name, v in shared.items()})], "m", False)
    names = ranking.fitting(found, 80)
    assert len(names) == ranking.MOST_COLUMNS and names[:3] == list(shared)
    assert ranking.fitting(found, 80 * 16)[-1] == "model.of_one19" and len(ranking.fitting(found, 160)) == 7
    many = ranked([row(float(i), **{f"trainer.{k}": i for k in range(9)}, lr=i) for i in range(2)], "m", False)
    assert "lr" in ranking.fitting(many, 80)
    ranking.print_table(found)
    said = capsys.readouterr().out
    assert "2 of 2 have m, the smaller the better" in said and "17 more options in which they differ" in said
    assert "Net" in said and "modules" not in said


def test_short_names() -> None:
    names = ["model.init_args.network.init_args.width", "data.init_args.batch_size", "trainer.max_epochs"]
    assert [ranking.short(name) for name in names] == ["network.width", "data.batch_size", "trainer.max_epochs"]


def test_csv() -> None:
    rows = [row(None, FAILED, a=1, b="x,y"), row(0.25, a=None)]
    ranking.write_csv(ranked(rows, "val/loss", False), Path("t.csv"))
    assert list(csv.reader(Path("t.csv").read_text().splitlines())) == [
        ["trial", "state", "val/loss", "a", "b"],
        ["0.25", "finished", "0.25", "null", "null"],
        ["None", "failed", "", "1", "x,y"],
    ]


def run(name: str, score: float | None, width: int, monitor: str | None = "val/loss", **fit: Any) -> Path:
    folder = Path("runs", name)
    folder.mkdir(parents=True)
    config = {"run": {"monitor": monitor, "mode": "max", "name": name}, "model": {"init_args": {"width": width}}}
    (folder / "config.fit.yaml").write_text(yaml.safe_dump(config))
    if score is not None:
        result = {"monitor": monitor, "best_score": score, "metrics": {"val/error": 1 / width, "val/loss": 9.0}} | fit
        (folder / "result.json").write_text(json.dumps({"fit": result}))
    return folder


def test_any_runs() -> None:
    run("a", 1.0, 4), run("b", 3.0, 8)
    unfinished = run("c", None, 16)
    (unfinished / "metrics.csv").write_text("step,val/loss\n0,2.0\n1,1.5\n")
    found = of_runs([Path("runs")], None, None)
    assert [(one.name, one.state, one.score) for one in found.rows] == [
        ("b", FINISHED, 3.0),
        ("c", UNFINISHED, 2.0),
        ("a", FINISHED, 1.0),
    ]
    assert found.rows[0].parameters == {"model.width": 8} and found.metric == "val/loss" and found.maximize
    assert [one.score for one in of_runs([Path("runs")], None, "minimize").rows] == [1.0, 1.5, 3.0]
    errors = of_runs([Path("runs")], "val/error", None)
    assert [one.score for one in errors.rows] == [0.125, 0.25, None] and not errors.maximize


def test_runs_of_a_sweep_keep_their_state() -> None:
    run("t1/000", None, 4)
    (Path("runs/t1/000/metrics.csv")).write_text("step,val/loss\n0,2.0\n")
    Path("runs/t1/trial.json").write_text(json.dumps({"state": STOPPED}))
    assert [one.state for one in of_runs([Path("runs")], None, None).rows] == [STOPPED]


def test_what_cannot_be_ranked() -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        of_runs([Path("nowhere")], None, None)
    run("a", 1.0, 4, monitor=None)
    with pytest.raises(ValueError, match="name one with --metric"):
        of_runs([Path("runs")], None, None)
    with pytest.raises(ValueError, match="no run has the metric val/f1; they have none"):
        of_runs([Path("runs")], "val/f1", None)


def test_the_picture_has_a_panel_for_each_parameter() -> None:
    rows = [row(k + 0.5, STOPPED if k == 3 else FINISHED, lr=10.0**-k, kind="ab"[k % 2], fixed=1) for k in range(4)]
    assert plots.plot(ranked(rows, "val/loss", False), Path("two.png"))
    assert plots.plot(
        ranked([row(one.score, kind=one.parameters["kind"]) for one in rows], "m", False), Path("one.png")
    )
    two, one = (Image.open(name).size for name in ("two.png", "one.png"))
    assert two == (2 * one[0], one[1])
    assert not plots.plot(ranked([row(1.0, a=1), row(None, FAILED, a=2)], "m", False), Path("none.png"))
    assert not Path("none.png").exists()


def test_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = plots.Figure()
    axes = figure.subplots()
    assert plots.position([1, 100, 1, 3], axes) == [1, 100, 1, 3] and axes.get_xscale() == "log"
    assert list(axes.get_xticks()) == [1, 3, 100]
    axes = plots.Figure().subplots()
    assert plots.position([0.0, 0.5], axes) == [0, 0.5] and axes.get_xscale() == "linear"
    assert plots.position(["b", None, "a.b.c", "b"], axes) == [2, 0, 1, 2]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["None", "c", "b"]
