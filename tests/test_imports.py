"""Imports flow one way: components -> a method -> train.py; methods, datamodules and callbacks do not meet."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
METHODS = {p.name for p in (ROOT / "modules").iterdir() if p.is_dir() and p.name not in ("components", "__pycache__")}
LIGHTNING_BASE = ("gathering_module.py",)
"""Of components, the one LightningModule that methods share: its parents, which hold no mathematics."""
SOURCES = sorted(p for folder in ("modules", "datamodules", "callbacks", "cli") for p in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_flow_one_way(path):
    parts = path.relative_to(ROOT).parts
    own = parts[1] if parts[0] == "modules" and len(parts) > 2 else None
    for name in imported(path):
        top, *rest = name.split(".")
        assert top not in ("train", "codec", "sweep", "tests"), f"{path} imports the program {name}"
        if top == "modules" and rest and rest[0] in METHODS:
            assert rest[0] == own, f"{path} imports the method {name}"
        if own == "components" and parts[2:] != LIGHTNING_BASE:
            assert top != "pytorch_lightning", f"{path} is for networks without Lightning"
        if parts[0] == "modules":
            assert top not in ("datamodules", "callbacks", "cli"), f"{path} imports {name}"
        if parts[0] == "datamodules":
            assert top not in ("callbacks", "cli"), f"{path} imports {name}"
            assert top != "modules" or rest[0] == "components", f"{path} imports {name}"
        if parts[0] == "callbacks":
            assert top != "cli", f"{path} imports {name}"


def test_torchac_is_not_compiled_by_importing_the_programs():
    code = "import sys, train, codec, modules.l3c.module; print('torchac' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
