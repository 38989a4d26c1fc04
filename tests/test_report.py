"""The page about runs: what it holds, what it leaves out, and that nothing in a run's folder can act in a browser."""

import base64
import html
import json
import re
import shutil
import subprocess
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from PIL import Image

import report
from cli import finished_runs, run_products
from cli.finished_runs import by_model, differences, flat, read_runs, short_names
from cli.page import MANY, MAX_POINTS, colours, thinned

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


def write_run(folder: Path, rate: float = 0.1, finished: bool = True, model: str = "modules.a.module.Net") -> Path:
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
    (run / "table.csv").write_text("name,share\nfirst,0.75\nlong,0.12345678901234\n" + "more,1\n" * 60)
    page = made(Path("runs"))
    for words in (
        "val/error 20.25",
        "61",
        "0123456789+",
        "python train.py fit",
        "report/scenes.png",
        "first",
        "0.75",
        " 0.123457 ",
    ):
        assert words in page.text
    assert "table.csv: the first 40 of 62 rows" in page.text
    assert base64.b64encode(PNG).decode() in " ".join(page.sources)
    assert sum(source.startswith("data:image/svg+xml") for source in page.sources) == 1  # the error has one value


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
    write_run(Path("runs/b/000"), model="modules.b.module.Other")
    page = made(Path("runs"))
    assert page.text.count("What differs") == 1 and "What differs: 1 options" in page.text
    assert "model.optimizer.lr" in page.text and "a: Net, 2 runs" in page.text and "b: Other" in page.text
    assert "max_steps" not in page.text and "save_dir" not in page.text
    assert sum(source.startswith("data:image/svg+xml") for source in page.sources) == 2  # one of each module
    assert page.tags.count("b") == 2  # of the legend of the first


def test_metrics_of_one_module_stand_side_by_side() -> None:
    for number, measured in (
        ("000", {"val/error": 20.5, "train/loss": 0.5}),
        ("001", {"val/error": 7.25, "lr-SGD": 0.1}),
    ):
        result = {"fit": {"metrics": measured}, "test": {"metrics": {"test/error": 3.0}}}
        (write_run(Path("runs/a", number)) / "result.json").write_text(json.dumps(result))
    rows = re.findall(r"<tr>(.*?)</tr>", made(Path("runs")) and Path("out/page.html").read_text())
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]
    start = cells.index(["metric", "by", "000", "001"])
    assert cells[start + 1 : start + 4] == [
        ["val/error", "fit", "20.5", "7.25"],
        ["train/loss", "fit", "0.5", ""],
        ["test/error", "test", "3", "3"],
    ]
    assert not any(row and row[0].startswith("lr-") for row in cells)


def test_of_more_metrics_than_a_table_holds_the_first_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_OPTIONS", 2)
    result = {"fit": {"metrics": {f"val/{letter}": 1 for letter in "abc"}}}
    (write_run(Path("runs/a/000")) / "result.json").write_text(json.dumps(result))
    text = made(Path("runs")).text
    assert "Metrics: the first 2 of 3" in text and "val/b" in text and "val/c" not in text


def test_what_is_no_course_is_not_drawn() -> None:
    run = write_run(Path("runs/a/000"))
    (run / "metrics.csv").write_text("step,lr-Adam,generation,epoch_in_generation,val/f1\n0,1,1,1,1\n1,2,2,2,\n")
    assert not [source for source in made(run).sources if "svg" in source]


def test_of_many_metrics_the_first_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_PLOTS", 2)
    run = write_run(Path("runs/a/000"))
    (run / "metrics.csv").write_text("step,train/a,val/b,test/c\n0,1,1,1\n1,2,2,2\n")
    page = made(run)
    assert sum("svg" in source for source in page.sources) == 2 and "and 1 more in metrics.csv" in page.text
    assert "val/b" in page.text and "test/c" in page.text and "train/a" not in page.text


def test_a_run_that_goes_on_shows_its_curve() -> None:
    run = write_run(Path("runs/a/000"), finished=False)
    table = (run / "metrics.csv").read_text()
    (run / "metrics.csv").unlink()
    (run / "csv" / "version_0").mkdir(parents=True)
    (run / "csv" / "version_0" / "first_step").write_text("0\n")
    (run / "csv" / "version_0" / "metrics.csv").write_text(table + "0,3,0.")  # half a row
    assert sum("svg" in source for source in made(run).sources) == 1


def test_a_run_that_was_only_tested_has_its_config() -> None:
    run = write_run(Path("runs/a/000"))
    (run / "config.fit.yaml").rename(run / "config.test.yaml")
    assert by_model(read_runs([Path("runs")])).keys() == {"a: Net"}


def test_algorithms_and_other_texts() -> None:
    run = write_run(Path("runs/a/000"))
    (run / "algorithms.txt").write_text("m1 = (a11 + a22) (b11 + b22)\n" + "m <script>\n" * run_products.TEXT_LINES)
    page = made(run)
    assert (
        "m1 = (a11 + a22) (b11 + b22)" in page.text
        and f"algorithms.txt: the first {run_products.TEXT_LINES} of {run_products.TEXT_LINES + 1} lines" in page.text
    )
    assert page.text.count("m <script>") == run_products.TEXT_LINES - 1 and "script" not in page.tags


def test_the_table_and_the_plot_of_a_sweep() -> None:
    write_run(Path("runs/sweeps/s/01ab/000"))
    Path("runs/sweeps/s/trials.csv").write_text("trial,state,val/error\n01ab,stopped,20.25\n")
    Path("runs/sweeps/s/trials.png").write_bytes(PNG)
    page = made(Path("runs"))
    assert "Sweep s" in page.text and "stopped" in page.text
    assert base64.b64encode(PNG).decode() in " ".join(page.sources)


def test_an_unfinished_and_a_damaged_run_are_told() -> None:
    write_run(Path("runs/a/000"), finished=False)
    damaged = write_run(Path("runs/a/001"))
    (damaged / "result.json").write_text('{"fit": {')
    (damaged / "config.fit.yaml").write_text("!!python/object/apply:os.system [touch hacked]")
    (damaged / "metrics.csv").write_bytes(b"step,a\n1,\xff\n")
    (damaged / "binary.csv").write_bytes(b"\xff\xfe\x00")
    (damaged / "no.png").write_text("<svg onload=alert(1)>")
    page = made(Path("runs"))
    assert page.text.count("not finished") == 2 and page.text.count("no result yet") == 2
    assert page.text.count("damaged files") == 1
    for name in ("result.json", "config.fit.yaml", "metrics.csv", "binary.csv", "no.png"):
        assert f"not shown: {name}" in page.text
    assert not Path("hacked").exists()


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))


@pytest.mark.parametrize(
    "config", [BOMB, BOMB[:60] + "b: &b [*b]\n", "[" * 99 + "]" * 99, "a: {b: " * 99 + "1" + "}" * 99, "- 1\n" * 30_000]
)
def test_a_config_of_a_stranger_is_bounded(config: str) -> None:
    run = write_run(Path("runs/a/000"))
    (run / "config.fit.yaml").write_text(config)
    assert "not shown: config.fit.yaml: " in made(run).text


@pytest.mark.parametrize(
    "result",
    [
        {"seconds": "long", "monitor": 3, "best_score": [1], "commit": 7, "device": None, "command": ["x"]},
        {"seconds": 10**400, "metrics": {"a": 10**400, "b": None, "c": [1], "d": 1e308}, "best_score": "1"},
        {"seconds": float("inf"), "metrics": [1], "monitor": None, "best_score": float("nan")},
    ],
)
def test_a_result_of_a_stranger_is_taken_as_it_is(result: dict) -> None:
    run = write_run(Path("runs/a/000"))
    (run / "result.json").write_text(json.dumps({"fit": result, "test": 3}))
    assert "fit" in made(run).text


@pytest.mark.parametrize(
    "table",
    [
        "step,a\n\u00b2,1\n1,1,1,1\n2,1e-300\n3,-1e-300\n4,0\n",
        "step,a\n1,1.7e308\n2,-1.7e308\n3,1.7e308\n",
        "step,a\n99999999999999999999999,1\n1,2\n2,1e99\n",
        "a,b\n1,2\n",
        "",
        "step," + ",".join(f"m{i}" for i in range(500)) + "\n1\n",
    ],
)
def test_metrics_of_a_stranger(table: str) -> None:
    run = write_run(Path("runs/a/000"))
    (run / "metrics.csv").write_text(table)
    assert "not shown" not in made(run).text


def test_links_are_not_followed() -> None:
    run = write_run(Path("runs/a/000"))
    Path("secret.csv").write_text("password\nhunter2\n")
    Path("secret.png").write_bytes(PNG)
    Path("elsewhere").mkdir()
    Path("elsewhere/secret.txt").write_text("hunter2")
    for name in ("secret.csv", "secret.png", "elsewhere"):
        (run / name).symlink_to(Path(name).resolve())
    page = made(run)
    assert "hunter2" not in page.text and not [source for source in page.sources if "png" in source]
    (run / "config.fit.yaml").unlink()
    (run / "config.fit.yaml").symlink_to(Path("secret.csv").resolve())
    assert "config.fit.yaml: no plain file" in made(run).text


def test_what_machinery_keeps_is_no_product_and_no_run() -> None:
    run = write_run(Path("runs/a/000"))
    for folder in ("wandb", "csv", "checkpoints", ".launches"):
        (run / folder).mkdir()
        (run / folder / "inner.csv").write_text("a\n1\n")
        (run / folder / "result.json").write_text('{"fit": {"seconds": 1}}')
    (run / ".hidden.csv").write_text("a\n1\n")
    page = made(Path("runs"))
    assert "inner.csv" not in page.text and "hidden" not in page.text
    assert len(read_runs([Path("runs")])) == 1


def test_what_is_too_much_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (report, "MAX_RUNS", 2),
        (report, "MAX_BYTES", len(PNG)),
        (run_products, "MAX_PICTURES", 3),
        (run_products, "MAX_TABLES", 1),
        (run_products, "MAX_FILES", 9),
    ):
        monkeypatch.setattr(module, name, value)
    for number in range(4):
        run = write_run(Path(f"runs/a/{number:03d}"))
        for i in range(4):
            (run / f"p{i}.png").write_bytes(PNG)
            (run / f"t{i}.csv").write_text("a\n1\n")
    (run / "u.csv").write_text("a\n1\n")
    page = made(Path("runs"))
    for words in (
        "and 2 older runs",
        "1 more pictures, from p3.png on",
        "more tables, from t1.csv on",
        "more than 9 files",
    ):
        assert words in page.text
    assert page.text.count("not shown: p") == 5  # of the six pictures that two runs show, one fits
    assert sum(source.startswith("data:image/png") for source in page.sources) == 1


def test_large_files_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(Path("runs/a/000"))
    (run / "large.png").write_bytes(PNG + bytes(100))
    (run / "large.csv").write_text("a\n" * 99)
    monkeypatch.setattr(run_products, "MAX_PICTURE_BYTES", len(PNG) + 99)
    monkeypatch.setattr(finished_runs, "MAX_BYTES", 190)
    page = made(run)
    assert "large.png: 170 bytes, 169 at most" in page.text and "large.csv: 198 bytes, 190 at most" in page.text


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
    assert list(by_model(runs)) == ["a: Net"]


@pytest.mark.parametrize("number", [1, MAX_POINTS, MAX_POINTS + 1, 10 * MAX_POINTS])
def test_long_curves_are_thinned_by_means(number: int) -> None:
    curve = [(step, float(step)) for step in range(number)]
    found = thinned(curve)
    assert len(found) <= MAX_POINTS and all(step == value for step, value in found)
    assert found[0][0] == (-(-number // MAX_POINTS) - 1) / 2
    assert found == curve or number > MAX_POINTS


def test_each_run_has_a_colour_of_its_own() -> None:
    for number in (1, MANY, MANY + 1, 100):
        assert len(set(colours([str(i) for i in range(number)]).values())) == number


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
PROBE = """
const found = [];
for (const frame of document.querySelectorAll('iframe')) {
  const page = frame.contentDocument, root = page.documentElement, width = root.clientWidth;
  const outside = [...page.querySelectorAll('body *')].filter(
    (e) => e.getBoundingClientRect().right > width + 1 && !e.closest('.scroll') && !e.closest('pre'));
  const images = [...page.querySelectorAll('img')];
  found.push({
    width: width, scrolls_to: root.scrollWidth, outside: outside.map((e) => e.tagName),
    images: images.length, broken: images.filter((e) => !e.naturalWidth).length,
    loaded: frame.contentWindow.performance.getEntriesByType('resource').map((e) => e.name)
      .filter((name) => !name.startsWith('data:')),
    colour: frame.contentWindow.getComputedStyle(page.body).color,
  });
}
document.title = JSON.stringify(found);
"""


def in_a_browser(page: str, widths: tuple[int, ...]) -> list[dict]:
    """What a page is like in frames of these widths; a window has 500 pixels at least."""
    frames = "".join(f'<iframe width={width} height=900 srcdoc="{html.escape(page)}"></iframe>' for width in widths)
    Path("frames.html").write_text(f"<!doctype html><title></title>{frames}<script>onload = () => {{{PROBE}}}</script>")
    with tempfile.TemporaryDirectory() as profile:
        words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom"]
        done = subprocess.run(
            [str(BROWSER), *words, f"file://{Path('frames.html').resolve()}"],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title and title[1], done.stderr
    return json.loads(html.unescape(title[1]))


def write_wide_runs() -> None:
    """Two runs with everything that could be too wide."""
    for number in range(2):
        run = write_run(Path(f"runs/a/{'long' * 20}_{number}"), rate=0.1 + number)
        Image.new("RGB", (3000, 100), "teal").save(run / f"{'wide' * 30}.png")
        Image.new("RGB", (10, 4000), "teal").save(run / "tall.jpg")
        header = ",".join(f"column{i}" for i in range(50))
        (run / "table.csv").write_text(header + "\n" + "1.5," * 49 + "x" * 999)
        (run / "algorithms.txt").write_text("m1 = " + " + ".join(["a11"] * 99))
        result = json.loads((run / "result.json").read_text())
        result["fit"]["command"] = "python train.py fit --a.b=" + "c" * 500
        (run / "result.json").write_text(json.dumps(result))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_in_a_browser_nothing_is_cut_off_and_nothing_is_loaded() -> None:
    write_wide_runs()
    made(Path("runs"))
    for found, width in zip(in_a_browser(Path("out/page.html").read_text(), (1280, 400)), (1280, 400), strict=True):
        assert width - 20 <= found["width"] <= width and found["scrolls_to"] == found["width"]
        assert not found["outside"] and not found["loaded"]
        assert found["images"] == 5 and not found["broken"]
        assert found["colour"] == "rgb(0, 0, 0)"


def test_the_page_says_itself_that_it_loads_nothing() -> None:
    """Also without a browser: no script, no style sheet, font, frame or picture from elsewhere."""
    write_wide_runs()
    page = made(Path("runs"))
    assert not {"script", "link", "iframe", "object", "embed", "video", "audio", "base", "form"} & set(page.tags)
    style = Path("out/page.html").read_text().partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style and "http" not in style
    assert all(source.startswith(("data:image/", "#")) for source in page.sources)
    assert all(
        rule in style for rule in ("img { max-width: 100%", ".scroll { overflow-x: auto", "overflow-wrap: anywhere")
    )
