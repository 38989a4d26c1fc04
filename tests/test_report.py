"""The page about runs: what it holds, what it leaves out, and that nothing in a run's folder can act in a browser."""

import base64
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

import report
from cli.finished_runs import by_model, differences, flat, read_runs, short_names
from cli.page import MAX_POINTS, thinned

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Page(HTMLParser):
    """Tags, the text, and what images and links point to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.feed(path.read_text())
        self.text = " ".join(self.words)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def write_run(folder: Path, rate: float = 0.1, finished: bool = True, model: str = "modules.a.Net") -> Path:
    folder.mkdir(parents=True)
    config = {
        "run": {"name": folder.name, "dir": str(folder)},
        "trainer": {
            "max_steps": 4,
            "logger": [{"class_path": "x.CSV", "init_args": {"save_dir": f"{folder}/{{number}}"}}],
        },
        "model": {"class_path": model, "init_args": {"optimizer": {"init_args": {"lr": rate}}}},
    }
    (folder / "config.fit.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.csv").write_text(f"epoch,step,train/loss,val/error\n0,0,{rate},\n0,1,nan,\n0,2,0.5,20.5\n")
    if finished:
        result = {"metrics": {"val/error": 20.5}, "monitor": "val/error", "best_score": 20.25, "seconds": 61.4}
        result |= {"command": "python train.py fit", "device": "1 x cpu", "commit": "0123456789abcdef", "dirty": True}
        (folder / "result.json").write_text(json.dumps({"fit": result}))
    return folder


def made(*folders: Path) -> Page:
    assert report.main([*map(str, folders), "--output", "out/page.html"]) == 0
    return Page(Path("out/page.html"))


def test_runs_with_their_results_tables_and_pictures() -> None:
    run = write_run(Path("runs/a/000"))
    (run / "report").mkdir()
    (run / "report" / "scenes.png").write_bytes(PNG)
    (run / "table.csv").write_text("name,share\nfirst,0.75\n" + "more,1\n" * 60)
    page = made(Path("runs"))
    for words in ("val/error 20.25", "61", "0123456789+", "python train.py fit", "report/scenes.png", "first", "0.75"):
        assert words in page.text
    assert "the first 40 of 61 rows" in page.text
    assert base64.b64encode(PNG).decode() in " ".join(page.sources)
    assert sum(source.startswith("data:image/svg+xml") for source in page.sources) == 2  # the loss and the error


def test_the_page_needs_no_network_and_runs_nothing() -> None:
    run = write_run(Path("runs/a/<script>alert(1)"))
    (run / "evil.csv").write_text('"<script>alert(2)</script>","<a href=""#x"" onclick=""alert(3)"">"\n1,2\n')
    result = json.loads((run / "result.json").read_text())
    result["fit"]["command"] = '"><img src=http://far.away onerror=alert(4)>'
    result["fit"]["metrics"]["<svg onload=alert(5)>"] = 1
    (run / "result.json").write_text(json.dumps(result))
    page = made(run)
    assert "script" not in page.tags and "svg" not in page.tags
    assert all(source.startswith(("data:image/", "#")) for source in page.sources)
    assert "alert(2)" in page.text and "alert(4)" in page.text


def test_a_cell_that_looks_like_a_link_stays_text() -> None:
    run = write_run(Path("runs/a/000"))
    (run / "t.csv").write_text('name\n"<a href=""#"" onclick=alert(1)>x</a>"\n')
    assert "a" not in made(run).tags[made(run).tags.index("h2") :]


def test_runs_of_one_module_are_compared_and_curves_share_a_plot() -> None:
    write_run(Path("runs/a/000"))
    write_run(Path("runs/a/001"), rate=0.2)
    write_run(Path("runs/b/000"), model="modules.b.Other")
    page = made(Path("runs"))
    assert "Net: 1 options of 2 runs" in page.text and "model.optimizer.lr" in page.text
    assert "max_steps" not in page.text and "save_dir" not in page.text and "Other:" not in page.text
    assert sum(source.startswith("data:image/svg+xml") for source in page.sources) == 2


def test_an_unfinished_and_a_damaged_run_are_told() -> None:
    write_run(Path("runs/a/000"), finished=False)
    damaged = write_run(Path("runs/a/001"))
    (damaged / "result.json").write_text('{"fit": {')
    (damaged / "config.fit.yaml").write_text("!!python/object/apply:os.system [touch hacked]")
    (damaged / "binary.csv").write_bytes(b"\xff\xfe\x00")
    page = made(Path("runs"))
    assert page.text.count("not finished") == 2 and "no result yet" in page.text
    for name in ("result.json", "config.fit.yaml", "binary.csv"):
        assert f"could not be read: {name}" in page.text
    assert not Path("hacked").exists()


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture) -> None:
    Path("empty").mkdir()
    for folder, complaint in (("nowhere", "no folder nowhere"), ("empty", "no run below empty")):
        assert report.main([folder]) == 2
        said = capsys.readouterr().err
        assert complaint in said and len(said.splitlines()) == 1
    assert not Path("report.html").exists()


def test_a_run_is_found_once_however_it_is_named() -> None:
    write_run(Path("runs/a/000"))
    assert len(read_runs([Path("runs"), Path("runs/a"), Path("runs/a/000")])) == 1


def test_names_leave_out_what_is_common() -> None:
    assert short_names([Path("/r/l3c/a/000"), Path("/r/ecg/b/001")]) == ["l3c/a/000", "ecg/b/001"]
    assert short_names([Path("/r/a/000"), Path("/r/a/001")]) == ["000", "001"]
    assert short_names([Path("/r/x/l3c/a/000")]) == ["l3c/a/000"]


def test_options_are_flattened_by_name() -> None:
    config = {"a": {"init_args": {"b": [1, 2]}}, "c": [{"d": None}, {"e": "x"}], "f": []}
    assert flat(config) == {"a.b": "[1, 2]", "c.0.d": "null", "c.1.e": '"x"', "f": "[]"}


def test_differences_of_missing_options() -> None:
    write_run(Path("runs/a/000"))
    other = write_run(Path("runs/a/001"))
    config = yaml.safe_load((other / "config.fit.yaml").read_text())
    config["data"] = {"seed": 3}
    (other / "config.fit.yaml").write_text(yaml.safe_dump(config))
    runs = read_runs([Path("runs")])
    assert list(differences(runs)) == [("data.seed", ["", "3"])]
    assert list(by_model(runs)) == ["Net"]


@pytest.mark.parametrize("number", [1, MAX_POINTS, MAX_POINTS + 1, 10 * MAX_POINTS])
def test_long_curves_are_thinned_by_means(number: int) -> None:
    curve = [(step, float(step)) for step in range(number)]
    found = thinned(curve)
    assert len(found) <= MAX_POINTS and all(step == value for step, value in found)
    assert found[0][0] == (-(-number // MAX_POINTS) - 1) / 2
    assert found == curve or number > MAX_POINTS
