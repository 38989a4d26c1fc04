"""Packing: what is in the shards and the index, interruption, what is left out and what is refused."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from datamodules.images import pack_images
from datamodules.images.pack_images import main, pack_folder, plan
from datamodules.images.shards import ROW, Shards
from tests.datamodules.conftest import WritePhoto

SHARD = 20_000


@pytest.fixture
def folder(tmp_path: Path, write_photo: WritePhoto) -> Path:
    for number in range(12):
        suffix = ("png", "jpg", "webp")[number % 3]
        write_photo(tmp_path / "in" / f"c{number % 2}" / f"{number:02d}.{suffix}", 30 + number, 40)
    write_photo(tmp_path / "in" / "c1" / "gray.png", mode="L")
    write_photo(tmp_path / "in" / "outside é.png")
    return tmp_path / "in"


def members(output: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(output.glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # type: ignore
    return found


def content(folder: Path) -> dict[str, int]:
    return {path.name: zlib.crc32(path.read_bytes()) for path in folder.iterdir()}


def test_shards_hold_the_files_and_the_index_finds_them(folder: Path, tmp_path: Path) -> None:
    shards = pack_folder(folder, tmp_path / "out", SHARD, quiet=True)
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    packed = members(tmp_path / "out")
    assert packed == files and list(packed) == sorted(files)
    assert len(shards.shards) >= 5 and max(shards.sizes.values()) <= SHARD
    assert [shards.name(row) for row in range(14)] == sorted(files)
    assert {shards.name(row): shards.read(row) for row in range(14)} == files
    assert shards.classes == ["c0", "c1"]
    assert shards.rows["label"].tolist() == [0] * 6 + [1] * 7 + [-1]
    assert shards.rows["crc"].tolist() == [zlib.crc32(files[name]) for name in sorted(files)]
    sizes = {shards.name(row): shards.rows[["height", "width", "channels"]][row].item() for row in range(14)}
    assert sizes["c1/05.webp"] == (35, 40, 3) and sizes["c1/gray.png"] == (40, 48, 1)
    assert shards.rows.dtype == ROW and not list((tmp_path / "out").glob("*-*.json"))


def test_the_plan() -> None:
    """A file takes a block for its header and whole blocks; a shard ends with two and has a multiple of 20."""
    for last, count in ((7680, 1), (7681, 2)):
        shards = plan([("a", 1), ("b", last)], 10_240 + 10_239)
        assert [shard.files for shard in shards] == ([["a", "b"]] if count == 1 else [["a"], ["b"]])
    assert [shard.files for shard in plan([("a", 9_000_000), ("b", 1), ("c", 1)], 100)] == [["a"], ["b"], ["c"]]
    assert [shard.name for shard in plan([("a", 9), ("b", 9)], 1)] == ["shard-000000.tar", "shard-000001.tar"]


def test_any_number_of_processes_and_of_attempts_writes_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_folder(folder, tmp_path / "one", SHARD, quiet=True)
    pack_folder(folder, tmp_path / "two", SHARD, workers=2, quiet=True)
    done = pack_images.pack_shard
    packed: list[str] = []

    def dies_at_the_third(shard: pack_images.Shard, folder: Path, output: Path) -> None:
        if len(packed) == 2:
            raise KeyboardInterrupt
        packed.append(shard.name)
        done(shard, folder, output)

    monkeypatch.setattr(pack_images, "pack_shard", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        pack_folder(folder, tmp_path / "three", SHARD, quiet=True)
    with pytest.raises(FileNotFoundError, match=r"holds shards but no shards\.json.*pack_images"):
        Shards(tmp_path / "three")
    stamps = {name: (tmp_path / "three" / name).stat().st_mtime_ns for name in packed}
    monkeypatch.setattr(pack_images, "pack_shard", done)
    pack_folder(folder, tmp_path / "three", SHARD, quiet=True)
    assert stamps == {name: (tmp_path / "three" / name).stat().st_mtime_ns for name in packed}
    assert content(tmp_path / "one") == content(tmp_path / "two") == content(tmp_path / "three")


def test_a_killed_process_is_continued(folder: Path, tmp_path: Path, write_photo: WritePhoto) -> None:
    picture = write_photo(folder / "c2" / "0.png", 200, 200).read_bytes()
    for number in range(1, 120):
        (folder / "c2" / f"{number}.png").write_bytes(picture)
    words = [sys.executable, "-m", "datamodules.images.pack_images", str(folder), str(tmp_path / "out")]
    words += ["--shard-size", "0.4"]
    process = subprocess.Popen(words, cwd=Path(__file__).parents[3], stderr=subprocess.DEVNULL)
    while not list((tmp_path / "out").glob("*.tar")):
        assert process.poll() is None, "too fast to be killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "out" / "shards.json").exists()
    assert main(words[3:]) == 0
    pack_folder(folder, tmp_path / "whole", 400_000, quiet=True)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_second_run_does_nothing_and_other_files_are_refused(
    folder: Path, tmp_path: Path, write_photo: WritePhoto, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(folder), str(tmp_path / "out"), "--shard-size", "0.02"]
    assert main(words) == 0
    first = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert main(words) == 0
    assert first == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert "14 images in " in capsys.readouterr().out
    whole = content(tmp_path / "out")
    (tmp_path / "out" / "shard-000001.tar").write_bytes(b"cut")  # is made again, as the error says
    assert main(words) == 0 and content(tmp_path / "out") == whole
    for wrong in ([*words[:3], "0.05"], [*words, "--shuffle", "1"]):
        assert main(wrong) == 2
        assert "was packed from other files or with other settings" in capsys.readouterr().err
    write_photo(folder / "new.png")
    assert main(words) == 2


def test_bad_images_are_counted_and_named(
    tmp_path: Path, write_photo: WritePhoto, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photo(tmp_path / "in" / "good.png")
    write_photo(tmp_path / "in" / "cut.jpg", 64, 64, cut=0.6)
    write_photo(tmp_path / "in" / "cmyk.jpg", mode="CMYK")
    (tmp_path / "in" / "text.png").write_text("no image")
    assert main([str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "1 images in 1 shards" in text
    assert "left out: 1 not 8-bit RGB (cmyk.jpg), 2 unreadable (cut.jpg, text.png)" in text
    assert list(members(tmp_path / "out")) == ["good.png"]
    (tmp_path / "in" / "good.png").unlink()
    assert main([str(tmp_path / "in"), str(tmp_path / "none")]) == 2
    assert "no usable image: 1 not 8-bit RGB" in capsys.readouterr().err
    assert not (tmp_path / "none" / "shards.json").exists()


def test_a_shuffled_set_holds_the_same_in_another_order(folder: Path, tmp_path: Path) -> None:
    orders = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        shards = pack_folder(folder, tmp_path / name, SHARD, seed, quiet=True)
        orders.append([shards.name(row) for row in range(14)])
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == sorted(orders[2])
    assert members(tmp_path / "a") == members(tmp_path / "c")


def test_mistakes_are_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "absent"), str(tmp_path / "out")]) == 2
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty"), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"pack_images: no folder {tmp_path / 'absent'}",
        f"pack_images: no PNG, JPEG or WebP file in {tmp_path / 'empty'}",
    ]
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    assert main([str(folder), str(tmp_path / "file" / "out")]) == 1
    assert "run the same command to continue" in capsys.readouterr().err
    for wrong in (["--shard-size", "0"], ["--workers", "0"]):
        with pytest.raises(SystemExit):
            main([str(folder), str(tmp_path / "out"), *wrong])
    os.close(os.open(os.fsencode(folder) + b"/\xff.png", os.O_CREAT))
    assert main([str(folder), str(tmp_path / "out")]) == 2
    assert "1 file names in" in (text := capsys.readouterr().err) and r"'\udcff.png'" in text


def test_the_manifest(folder: Path, tmp_path: Path) -> None:
    shards = pack_folder(folder, tmp_path / "out", SHARD, quiet=True)
    manifest = json.loads((tmp_path / "out" / "shards.json").read_text())
    assert manifest["images"] == 14 and manifest["classes"] == ["c0", "c1"] and manifest["skipped"] == {}
    assert [entry["name"] for entry in manifest["shards"]] == shards.shards
    assert np.load(tmp_path / "out" / "samples.npy", allow_pickle=False).dtype == ROW
