"""Rate and error over the kept area, with a stand-in codec whose numbers are known."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from callbacks.reports.kept_area import KeptArea, Row
from modules.components.coding.container import Container, Tile, pack

SHAPE = (32, 48)
IMAGE = np.full((*SHAPE, 3), 100, np.uint8)


class Columns:
    """Keeps cells of 8 x 8 pixels, a byte for each; decoded values are 1 too high inside, 5 too high outside."""

    network = SimpleNamespace(stride=8)

    def compress(self, image: np.ndarray, metadata: Any, keep: np.ndarray) -> Container:
        tile = Tile(0, 0, SHAPE[1], SHAPE[0], b"m" + keep.tobytes() + b"s" * int(keep.sum()))
        return Container("columns", bytes(16), "RGB", "float32", 0, SHAPE[1], SHAPE[0], bytes(8), {}, [tile])

    def read(self, container: Container) -> Any:
        keep = np.frombuffer(container.tiles[0].payload[1:25], bool).reshape(4, 6)
        return SimpleNamespace(keep=keep, symbols=np.zeros((2, 4, 6), int))

    def decompress(self, container: Container) -> np.ndarray:
        keep = self.read(container).keep.repeat(8, 0).repeat(8, 1)
        return np.where(keep[..., None], 101, 105).repeat(3, -1).astype(np.uint8)


def side(scene: dict[str, Any], keep: str | None, box: str | None = None) -> np.ndarray:
    cells = np.full((4, 6), keep is None and box is None)
    if keep:
        cells[:, int(keep)] = True
    if box:
        left, top, width, height = (int(number) for number in box.split(","))
        cells[top // 8 : -(-(top + height) // 8), left // 8 : -(-(left + width) // 8)] = True
    return cells


def test_a_table_of_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []
    scenes = lambda count: asked.append(count) or [{"image": IMAGE, "name": str(i)} for i in range(count)]  # noqa: E731
    trainer = SimpleNamespace(datamodule=SimpleNamespace(held_out_scenes=scenes), is_global_zero=True)
    module = SimpleNamespace(codec=Columns, side_information=side)
    callback = KeptArea(str(tmp_path / "r"), 2, ["", "3", None], [(0.5, 0.0, 0.5, 0.25), (0.0, 0.0, 0.001, 0.001)])
    callback.setup(trainer, module, "test")  # type: ignore[arg-type]
    callback.on_test_end(trainer, module)  # type: ignore[arg-type]
    with (tmp_path / "r" / "kept_area.csv").open() as file:
        rows = {row["kept"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["nothing", "3", "everything", "box 0.5 0 0.5 0.25", "box 0 0 0.001 0.001"] and asked == [2]
    base = len(pack(Columns().compress(IMAGE, None, np.zeros((4, 6), bool))))
    for row, cells in zip(rows.values(), (0, 4, 24, 3, 1), strict=True):
        assert float(row["area"]) == pytest.approx(cells / 24, abs=1e-4)
        assert float(row["symbol_bytes"]) == cells and float(row["file_bytes"]) == base + cells
        assert float(row["bpp"]) == pytest.approx(8 * (base + cells) / (32 * 48), abs=1e-4)
        assert float(row["bound_bytes"]) == pytest.approx(cells * 2 * np.log2(5) / 8, abs=0.06)
        assert row["mse_inside"] == ("1.0" if cells else "") and row["mse_outside"] == ("25.0" if cells < 24 else "")
        assert row["mse_inside_if_not_kept"] == ("25.0" if cells else "")
    assert tuple(rows["3"]) == Row._fields and "kept_area.csv" in capsys.readouterr().out


def test_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_images must be at least 1, got 0"):
        KeptArea(str(tmp_path), num_images=0)
    for options in ({"keep": []}, {"boxes": [(0.5, 0, 0.6, 1)]}, {"boxes": [(0, -0.1, 0.5, 0.5)]}):
        with pytest.raises(ValueError, match=r"need a choice and boxes within 0\.\.1"):
            KeptArea(str(tmp_path), **options)  # type: ignore[arg-type]
    trainer: Any = SimpleNamespace(datamodule=SimpleNamespace())
    with pytest.raises(ValueError, match=r"KeptArea needs a module with codec\(\)"):
        KeptArea(str(tmp_path)).setup(trainer, SimpleNamespace(codec=1, side_information=1), "test")  # type: ignore[arg-type]
