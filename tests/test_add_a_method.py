"""The method of docs/add_a_method.md works: its files, taken from the page, train, resume and pass their own test."""

import json
import re
import sys
from pathlib import Path

import pytest

from train import main

ROOT = Path(__file__).parents[1]
FILES = dict(re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", (ROOT / "docs/add_a_method.md").read_text(), re.M | re.S))
MODULES = [name for name in FILES if name.startswith("modules/")]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's files in the test's folder, beside the project's packages."""
    for name, text in FILES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    (Path("configs") / "data").symlink_to(ROOT / "configs" / "data")
    import modules

    monkeypatch.setattr(modules, "__path__", [*modules.__path__, str(Path("modules").resolve())])
    yield
    for name in [name for name in sys.modules if name.startswith("modules.block_transform")]:
        del sys.modules[name]


def test_the_pages_method_trains_and_resumes(written: None) -> None:
    config = next(name for name in FILES if name.endswith(".yaml"))
    small = [
        "--data.init_args.crops_per_epoch=40",
        "--data.init_args.num_dead_leaves=2",
        "--data.init_args.crop_size=32",
    ]
    words = ["fit", "--config", config, *small, "--trainer.enable_progress_bar=false"]
    main([*words, "--trainer.max_epochs=2"])
    main([*words, "--trainer.max_epochs=1", "--run.dir=other"])
    main([*words, "--trainer.max_epochs=2", "--run.dir=other", "--ckpt_path=last"])
    whole, resumed = (
        json.loads(Path(folder, "000/result.json").read_text())["fit"]
        for folder in ("runs/block_transform/quickstart", "other")
    )
    assert whole["monitor"] == "val/psnr_db" and 5 < whole["best_score"] < 40
    assert whole["metrics"] == resumed["metrics"]


def test_the_pages_own_tests_pass(written: None) -> None:
    [tests] = [text for name, text in FILES.items() if name.startswith("tests/")]
    content: dict = {}
    exec(compile(tests, "test_nets.py", "exec"), content)
    found = [content[name] for name in content if name.startswith("test_")]
    assert len(found) == 3
    for test in found:
        test()


def test_the_page_names_what_is_there() -> None:
    text = re.sub(r"```.*?```", "", (ROOT / "docs/add_a_method.md").read_text(), flags=re.S)
    paths = re.findall(r"`((?:modules|configs|tests|datamodules|callbacks)/[\w/]+\.(?:py|yaml|md))`", text)
    missing = [path for path in paths if not (ROOT / path).exists() and path not in FILES]
    assert len(paths) > 8 and not missing and len(MODULES) == 2
