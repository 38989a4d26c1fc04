"""Compiled kernels: kept between runs, never older than what they were made from, and never a reason to stop."""

import subprocess
import sys
from pathlib import Path

import numba.core.caching
import pytest

from modules.components import kernels
from modules.components.kernels import kernel, sources_of, stamp

ROOT = Path(__file__).parents[3]

PROGRAM = """
import sys
sys.path.insert(0, ".")
from modules.components import kernels
kernels.ROOT = __import__("pathlib").Path(".").resolve()
from project.user import use
print(use(1), sum(use.stats.cache_hits.values()))
"""
HELPER = "from numba import njit\nSTEP = 10\n\n@njit(inline='always')\ndef helper(x):\n    return x + STEP\n"
USER = (
    "from modules.components.kernels import kernel\nfrom project.helper import helper\n\n"
    "@kernel()\ndef use(x):\n    return helper(x)\n"
)


def run() -> list[int]:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    return [int(number) for number in result.stdout.split()]


def test_a_change_of_an_inlined_helper_in_another_file_is_seen():
    Path("project").mkdir()
    Path("project/helper.py").write_text(HELPER)
    Path("project/user.py").write_text(USER)
    assert run() == [11, 0]
    assert run() == [11, 1]
    Path("project/helper.py").write_text(HELPER.replace("STEP = 10", "STEP = 20"))
    assert run() == [21, 0]


def test_sources_are_followed_through_imports():
    names = {path.relative_to(ROOT).as_posix() for path in sources_of(ROOT / "modules/l3c/integer_mixture.py")}
    assert {"modules/l3c/nets.py", "modules/components/coding/rans.py", "modules/components/quantizers.py"} <= names
    assert "modules/l3c/codec.py" not in names
    assert stamp(ROOT / "modules/l3c/nets.py") != stamp(ROOT / "modules/components/quantizers.py")


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("import pack.a", ["pack/a.py"]),
        ("import pack.a as x, pack.b", ["pack/a.py", "pack/b.py"]),
        ("from pack.a import name", ["pack/a.py"]),
        ("from pack import a, nothing", ["pack/a.py"]),
        ("def late():\n    from pack import b", ["pack/b.py"]),
        ("from .a import name", []),  # relative ones are not the project's style, and would be looked up at its root
        ("import numpy.linalg", []),
    ],
)
def test_every_way_to_import_a_file_of_the_project_counts(monkeypatch, tmp_path, source, files):
    monkeypatch.setattr(kernels, "ROOT", tmp_path)
    (tmp_path / "pack").mkdir()
    for name in ("a.py", "pack/a.py", "pack/b.py"):
        (tmp_path / name).touch()
    kernels.imported_files.cache_clear()
    assert kernels.imported_files(source.encode()) == {tmp_path / file for file in files}
    kernels.imported_files.cache_clear()


def test_a_stamp_follows_names_and_contents(tmp_path):
    for folder, name, text in (("1", "a.py", "x = 1"), ("2", "a.py", "x = 2"), ("3", "b.py", "x = 1")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    assert len({stamp(path) for path in tmp_path.glob("*/*.py")}) == 3


def test_no_kernel_is_cached_by_other_settings():
    for path in [*ROOT.glob("modules/**/*.py"), *ROOT.glob("datamodules/**/*.py")]:
        assert "cache=True" not in path.read_text(), path


def double(x):
    return 2 * x


def test_no_folder_to_write_to(monkeypatch):
    def refuse(self):
        raise PermissionError("read-only")

    monkeypatch.setattr(numba.core.caching._CacheLocator, "ensure_cache_path", refuse)
    assert kernel()(double)(4) == 8


def test_a_disk_that_is_full_when_the_kernel_is_kept(monkeypatch):
    def refuse(*_):
        raise OSError("no space left")

    monkeypatch.setattr(numba.core.caching.IndexDataCacheFile, "save", refuse)
    assert kernel()(double)(4) == 8


@pytest.mark.parametrize("damage", [b"", b"\x80\x05garbage", None], ids=["empty", "garbage", "cut"])
@pytest.mark.parametrize("suffix", [".nbc", ".nbi"])
def test_a_damaged_entry_is_compiled_again_and_kept(monkeypatch, tmp_path, suffix, damage):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert kernel()(double)(4) == 8
    (entry,) = tmp_path.rglob(f"*{suffix}")
    entry.write_bytes(entry.read_bytes()[:-5] if damage is None else damage)
    for hits in (0, 1):
        again = kernel()(double)
        assert again(4) == 8 and sum(again.stats.cache_hits.values()) == hits


@pytest.mark.parametrize("options", [{}, {"fastmath": True}])
def test_options_reach_the_compiler(options):
    compiled = kernel(**options)(double)
    assert compiled.targetoptions["nogil"] is True
    assert compiled.targetoptions.get("fastmath", False) == options.get("fastmath", False)
    assert isinstance(compiled._cache, kernels.SourceCache)


def test_with_the_compiler_switched_off_a_kernel_is_its_function(monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert kernel()(double) is double
    assert not hasattr(double, "_cache")
