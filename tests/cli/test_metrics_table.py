"""The rows of several processes as those of one run."""

import csv
from pathlib import Path

from cli.metrics_table import merged, write_merged

RUN = Path("run")


def process(number: int, first: int | None, text: str) -> None:
    folder = RUN / "csv" / f"version_{number}"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(text)
    if first is not None:
        (folder / "first_step").write_text(f"{first}\n")


def test_what_was_logged_behind_the_last_checkpoint_is_taken_back() -> None:
    process(0, 0, "epoch,step,train/loss,val/loss\n0,9,0.9,\n0,9,,0.8\n0,19,0.7,\n1,20,0.65,\n1,29,0.6,\n1,30")
    process(1, None, "epoch,step,test/loss\n0,0,5\n")  # a test in between, and below a process that logged nothing
    process(2, 20, "")
    process(10, 20, "epoch,lr,step,train/loss\n1,0.1,29,0.61\n1,0.1,39,0.5\n")
    write_merged(RUN)
    lines = [*csv.reader((RUN / "metrics.csv").read_text().splitlines())]
    assert lines == [
        ["epoch", "step", "lr", "train/loss", "val/loss"],
        ["0", "9", "", "0.9", ""],
        ["0", "9", "", "", "0.8"],
        ["0", "19", "", "0.7", ""],
        ["1", "29", "0.1", "0.61", ""],
        ["1", "39", "0.1", "0.5", ""],
    ]


def test_a_process_that_goes_on_behind_the_last_row_takes_nothing_back() -> None:
    process(0, 0, "step,a\n0,1\n3,2\n3")  # killed while it wrote a row
    process(1, 4, "step,a\n4,3\n")
    assert [row["a"] for row in merged(RUN)] == ["1", "2", "3"]


def test_a_start_that_was_not_written_takes_nothing_back() -> None:
    process(0, 0, "step,a\n0,1\n3,2\n")
    process(1, 2, "step,a\n4,3\n")
    (RUN / "csv" / "version_1" / "first_step").write_text("")
    assert [row["a"] for row in merged(RUN)] == ["1", "2", "3"]


def test_nothing_logged_is_no_file() -> None:
    RUN.mkdir()
    write_merged(RUN)
    assert not [*RUN.iterdir()]
