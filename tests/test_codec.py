"""The codec's command line: files in, files out, one line per bad file."""

import io
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import codec
from cli import codec_files
from modules.components.checkpoint_file import CheckpointError
from modules.components.coding.container import CorruptFileError, digest, pack, unpack
from modules.components.coding.model_file import load_network, save_weights
from modules.l3c.nets import L3CNet

NETWORK = {"class_path": "modules.l3c.nets.L3CNet", "init_args": {"channels": 8, "num_blocks": 1}}


@pytest.fixture
def weights() -> str:
    torch.manual_seed(0)
    save_weights(Path("narrow.pt"), NETWORK, L3CNet(8, 1).state_dict(), half=True)
    return "narrow.pt"


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: str, array: np.ndarray, mode: str | None = None, **options) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array, mode).save(path, **options)


def test_folders_and_files_come_back_with_profile_and_exif(weights, capsys):
    exif = Image.Exif()
    exif[0x010E] = "a description"
    save("in/a.png", pixels(0, 9, 14, 3), icc_profile=b"not a real profile", exif=exif)
    save("in/deep/b.webp", pixels(1, 16, 8, 3), lossless=True)
    save("c.bmp", pixels(2, 5, 5))
    call = ["--checkpoint", weights]
    assert codec.main(["compress", "in", "c.bmp", "--output", "out", *call]) == 0
    assert sorted(str(p) for p in Path("out").rglob("*.l3c")) == ["out/a.l3c", "out/c.l3c", "out/deep/b.l3c"]
    summary = capsys.readouterr().out
    assert "3 compressed" in summary and " s, " in summary and "MB/s" in summary
    assert codec.main(["info", "out/a.l3c"]) == 0
    assert "14 x 9 RGB" in capsys.readouterr().out
    assert codec.main(["decompress", "out", "--output", "back", *call, "--workers", "2"]) == 0
    for name, original in (("a.png", "in/a.png"), ("deep/b.png", "in/deep/b.webp"), ("c.png", "c.bmp")):
        assert np.array_equal(np.array(Image.open(f"back/{name}")), np.array(Image.open(original)))
    back = Image.open("back/a.png")
    assert back.info["icc_profile"] == b"not a real profile"
    assert back.getexif()[0x010E] == "a description"


def in_a_process(words, rank, dies_at=None):
    """Start codec.py as process ``rank`` of two; it ends itself by SIGKILL before its result ``dies_at`` is whole."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = 70
    try:
        torch.set_num_threads(1)
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
        replace, results = os.replace, []

        def replaced(source, target):
            results.append(target)
            if len(results) == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = replaced
        code = codec.main(words)
    finally:
        os._exit(code)


def codes(*pids):
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_two_processes_share_a_folder_and_a_killed_one_goes_on(weights):
    for number in range(7):
        save(f"in/{number}.png", pixels(number, 8, 9, 3))
    call = ["--checkpoint", weights]
    assert codec.main(["compress", "in", "--output", "whole", *call]) == 0
    words = ["compress", "in", "--output", "out", *call]
    assert codes(in_a_process(words, 0, dies_at=3), in_a_process(words, 1)) == [-signal.SIGKILL, 0]
    whole, cut = contents("whole"), contents("out")
    names = {name for name in cut if not name.endswith(".tmp")}
    assert names == {"0.l3c", "2.l3c", "1.l3c", "3.l3c", "5.l3c"} and len(cut) == 6
    assert {name: cut[name] for name in names} == {name: whole[name] for name in names}
    assert codes(in_a_process([*words, "--resume"], 0), in_a_process([*words, "--resume"], 1)) == [0, 0]
    assert contents("out") == whole
    assert codes(*(in_a_process(["decompress", "whole", "--output", "back", *call], rank) for rank in (0, 1))) == [0, 0]
    assert [np.array_equal(np.array(Image.open(f"back/{n}.png")), pixels(n, 8, 9, 3)) for n in range(7)] == [True] * 7


def test_parts_of_a_call(weights, capsys):
    for number in range(3):
        save(f"in/{number}.png", pixels(number, 8, 9, 3))
    call = ["compress", "in", "absent.png", "--output", "out", "--checkpoint", weights]
    assert codec.main([*call, "--part", "2/2"]) == 0
    assert sorted(contents("out")) == ["1.l3c"] and "part 2 of 2: 1 files" in capsys.readouterr().err
    assert codec.main([*call, "--part", "1/2"]) == 1
    assert "absent.png: no such file" in capsys.readouterr().err
    assert codec.main([*call[:2], *call[3:], "--resume"]) == 0
    captured = capsys.readouterr()
    assert "3 results are there already" in captured.err and not captured.out
    assert codec.main(["verify", "out", "--checkpoint", weights, "--part", "1/2"]) == 0
    assert "2 verified" in capsys.readouterr().out
    assert codec.main([*call, "--part", "3/2"]) == 2
    assert "--part is K/N" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        codec.main([*call, "--force", "--resume"])


def test_nothing_is_overwritten_without_force_and_nothing_is_left_behind(weights, capsys):
    save("a.png", pixels(0, 8, 8, 3))
    save("deep/a.png", pixels(1, 8, 8, 3))
    call = ["compress", "a.png", "--output", "out", "--checkpoint", weights]
    assert codec.main(call) == 0
    first = Path("out/a.l3c").read_bytes()
    assert codec.main(call) == 1
    assert "--force" in capsys.readouterr().err
    assert codec.main([*call, "--force"]) == 0
    assert Path("out/a.l3c").read_bytes() == first
    assert codec.main(["compress", "a.png", "deep/a.png", "--output", "both", "--checkpoint", weights]) == 1
    assert "another input already becomes" in capsys.readouterr().err
    assert [p.name for p in Path("out").iterdir()] == ["a.l3c"]


def sixteen_bit_rgb_png() -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(13))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def bad_files() -> dict[str, tuple[bytes, str]]:
    def encoded(image: Image.Image, image_format: str, **options) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, image_format, **options)
        return buffer.getvalue()

    rgb = Image.fromarray(pixels(0, 30, 30, 3))
    glass = rgb.convert("RGBA")
    glass.putpixel((3, 3), (1, 2, 3, 254))
    animation = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    return {
        "alpha.png": (encoded(glass, "PNG"), "alpha"),
        "bits.png": (encoded(rgb.convert("1"), "PNG"), "mode 1"),
        "deep_gray.png": (encoded(Image.fromarray(np.zeros((4, 4), np.uint16)), "PNG"), "mode I"),
        "deep_rgb.png": (sixteen_bit_rgb_png(), "16 bits"),
        "transparent.png": (encoded(rgb, "PNG", transparency=rgb.getpixel((5, 5))), "transparen"),
        "print.jpg": (encoded(rgb.convert("CMYK"), "JPEG"), "CMYK"),
        "moving.webp": (encoded(animation[0], "WEBP", save_all=True, append_images=animation[1:]), "2 frames"),
        "deep.ppm": (b"P6\n2 2\n1023\n" + bytes(24), "values up to 1023"),
        "cut.png": (encoded(rgb, "PNG")[:-60], ""),
        "cut.jpg": (encoded(rgb, "JPEG")[:200], ""),
        "text.png": (b"hello", "none of the known formats"),
        "empty.png": (b"", "none of the known formats"),
    }


def test_bad_files_are_named_and_the_others_go_on(weights, capsys):
    Path("in").mkdir()
    for name, (data, _) in bad_files().items():
        Path("in", name).write_bytes(data)
    save("in/good.png", pixels(3, 8, 8, 3))
    assert codec.main(["compress", "in", "missing.png", "--output", "out", "--checkpoint", weights]) == 1
    assert [p.name for p in Path("out").iterdir()] == ["good.l3c"]
    errors = capsys.readouterr().err
    for name, (_, reason) in bad_files().items():
        line = next(line for line in errors.splitlines() if line.startswith(f"in/{name}:"))
        assert reason in line
    assert "missing.png: no such file" in errors


def test_a_foreign_or_damaged_file_is_one_line(weights, capsys):
    save("a.png", pixels(0, 8, 8, 3))
    codec.main(["compress", "a.png", "--output", "out", "--checkpoint", weights])
    whole = Path("out/a.l3c").read_bytes()
    Path("out/b.l3c").write_bytes(whole[:60])
    torch.manual_seed(1)
    save_weights(Path("other.pt"), NETWORK, L3CNet(8, 1).state_dict(), half=True)
    assert codec.main(["decompress", "out", "--output", "back", "--checkpoint", "other.pt"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert "none of: other" in next(line for line in errors if line.startswith("out/a.l3c:"))
    assert "cut short" in next(line for line in errors if line.startswith("out/b.l3c:"))
    assert not Path("back").exists()


def test_alpha_palettes_and_chunks_come_back_as_said(weights, capsys):
    save("in/opaque.png", np.dstack([pixels(0, 6, 5, 3), np.full((6, 5), 255, np.uint8)]), dpi=(300, 300))
    Image.fromarray(pixels(1, 6, 5, 3)).quantize(4).save("in/palette.png")
    assert codec.main(["compress", "in", "--output", "out", "--checkpoint", weights]) == 0
    errors = capsys.readouterr().err
    assert "in/opaque.png: its alpha, opaque everywhere, is dropped" in errors
    assert "in/palette.png: its palette is looked up: RGB" in errors
    assert codec.main(["decompress", "out", "--output", "back", "--checkpoint", weights]) == 0
    with Image.open("in/opaque.png") as original, Image.open("back/opaque.png") as back:
        assert np.array_equal(np.array(back), np.array(original)[..., :3])
        assert back.info["dpi"] == original.info["dpi"]
    with Image.open("in/palette.png") as original, Image.open("back/palette.png") as back:
        assert np.array_equal(np.array(back), np.array(original.convert("RGB")))


def test_standard_input_and_output(weights, capsysbinary, monkeypatch):
    save("a.png", pixels(0, 7, 9, 3))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(Path("a.png").read_bytes())))
    assert codec.main(["compress", "-", "--output", "-", "--checkpoint", weights]) == 0
    output, errors = capsysbinary.readouterr()
    assert output[:4] == b"PSMY" and b"1 compressed" in errors
    for command in ("verify", "info"):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(output)))
        assert codec.main([command, "-", *(["--checkpoint", weights] if command == "verify" else [])]) == 0
        assert b"9 x 7 RGB" in capsysbinary.readouterr().out or command == "verify"
    Path("x.l3c").write_bytes(output)
    assert codec.main(["decompress", "x.l3c", "--output", "-", "--checkpoint", weights]) == 0
    png = capsysbinary.readouterr().out
    assert np.array_equal(np.array(Image.open(io.BytesIO(png))), pixels(0, 7, 9, 3))


def test_a_file_or_folder_may_be_called_dash(weights, capsys):
    save("a.png", pixels(0, 7, 9, 3))
    assert codec.main(["compress", "a.png", "--output", "./-", "--checkpoint", weights]) == 0
    Path("x").mkdir()
    Path("-/a.l3c").rename("x/-")
    Path("-").rmdir()
    Path("x/-").rename("-")
    for command in (["info"], ["verify", "--checkpoint", weights]):
        assert codec.main([*command, "./-"]) == 0
    assert "9 x 7 RGB" in capsys.readouterr().out


def test_one_input_one_named_file(weights):
    save("a.png", pixels(0, 7, 9, 3))
    assert codec.main(["compress", "a.png", "--output", "x.l3c", "--checkpoint", weights]) == 0
    assert codec.main(["decompress", "x.l3c", "--output", "y.png", "--checkpoint", weights]) == 0
    assert np.array_equal(np.array(Image.open("y.png")), pixels(0, 7, 9, 3))


def test_verify_decodes_and_writes_nothing(weights, capsys):
    save("in/a.png", pixels(0, 7, 9, 3))
    save("in/b.png", pixels(1, 7, 9, 3))
    call = ["--checkpoint", weights]
    codec.main(["compress", "in", "--output", "out", *call])
    before = sorted(Path().rglob("*"))
    assert codec.main(["verify", "out", *call]) == 0
    assert "2 verified" in capsys.readouterr().out
    file = bytearray(Path("out/a.l3c").read_bytes())
    start = file.index(digest(pixels(0, 7, 9, 3).tobytes()))
    file[start] ^= 1
    file[-8:] = digest(bytes(file[:-8]))
    Path("out/a.l3c").write_bytes(file)
    Path("notes.txt").write_text("nothing of ours")
    assert codec.main(["verify", "out", "notes.txt", *call]) == 1
    output = capsys.readouterr()
    assert "1 verified" in output.out
    assert "out/a.l3c: the file is intact but does not decode here" in output.err
    assert "notes.txt: not a Parsimony file" in output.err
    assert sorted(Path().rglob("*")) == sorted([*before, Path("notes.txt")])


def test_a_foreign_file_is_told_by_its_first_bytes(monkeypatch):
    Path("film.mp4").write_bytes(b"\0\0\0 ftyp")
    monkeypatch.setattr(codec_files, "read_whole", lambda path: pytest.fail("read it whole"))
    with pytest.raises(CorruptFileError, match="not a Parsimony file"):
        codec_files.read_container(Path("film.mp4"))


def test_compress_verifies_unless_told_not_to(weights, capsys, monkeypatch):
    save("a.png", pixels(0, 7, 9, 3))
    call = ["compress", "a.png", "--output", "out", "--checkpoint", weights]
    with monkeypatch.context() as patch:
        patch.setattr("modules.l3c.codec.Codec.decompress", lambda self, container: np.zeros((7, 9, 3), np.uint8))
        assert codec.main(call) == 1
        assert "did not decode to the same pixels" in capsys.readouterr().err and not Path("out").exists()
        assert codec.main([*call, "--no-verify"]) == 0
    assert codec.main(["verify", "out", "--checkpoint", weights]) == 0


def test_info_of_folders_escapes_what_a_terminal_would_obey(weights, capsys):
    save("in/a\x1b[31m.png", pixels(0, 7, 9, 3))
    assert codec.main(["compress", "in", "--output", "out", "--checkpoint", weights]) == 0
    path = next(Path("out").iterdir())
    container = unpack(path.read_bytes())
    path.write_bytes(pack(container._replace(metadata={"\x1b]0;title\x07": b"x"})))
    Path("out/note.txt").write_text("not ours")
    capsys.readouterr()
    assert codec.main(["info", "out"]) == 0
    output = capsys.readouterr().out
    assert (
        "\x1b" not in output and "\\x1b[31m.l3c: l3c, 9 x 7 RGB" in output and "\\x1b]0;title\\x07 (1 bytes)" in output
    )
    assert codec.main(["decompress", "out", "--output", "in", "--checkpoint", weights]) == 1
    assert "\x1b[31m" not in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["0", "-2", "two"])
def test_workers_are_counted_from_one(workers, capsys):
    with pytest.raises(SystemExit) as error:
        codec.main(["verify", "x", "--workers", workers])
    assert error.value.code == 2 and "--workers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compress", "a.png", "--output", "out", "--model", "nothing"], "no model 'nothing'"),
        (["compress", "a.png", "--output", "out", "--checkpoint", "nowhere.pt"], "nowhere.pt"),
        (["compress", "a.png", "b.png", "--output", "x.pmlp"], "one file, for one input"),
        (["export", "--checkpoint", "nowhere.ckpt", "--output", "x.pt"], "nowhere.ckpt"),
    ],
)
def test_mistakes_in_the_call_are_one_line_and_exit_code_2(arguments, message, capsys):
    assert codec.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [
        {"format": 1, "network": {"class_path": "os.system", "init_args": {"command": "true"}}, "state_dict": {}},
        {"format": 1, "network": {"class_path": "modules.l3c.nets.Path", "init_args": {}}, "state_dict": {}},
        {"format": 1, "network": NETWORK, "state_dict": {"x": torch.zeros(1)}},
        {
            "format": 1,
            "network": {"class_path": "modules.l3c.nets.L3CNet", "init_args": {"wrong": 1}},
            "state_dict": {},
        },
        {"format": 1},
        {"something": "else"},
        [1, 2],
    ],
)
def test_strange_weights_are_refused(content):
    torch.save(content, "strange.pt")
    with pytest.raises(CheckpointError, match=r"strange\.pt"):
        load_network(Path("strange.pt"))


def test_export_writes_what_it_has_loaded_again_and_nothing_else(weights, capsys, monkeypatch):
    call = ["export", "--checkpoint", weights, "--output", "deep/mine.pt"]
    assert codec.main(call) == 0
    fingerprint = codec.load_codec(Path("deep/mine.pt")).fingerprint
    assert fingerprint.hex() in capsys.readouterr().out
    whole = Path("deep/mine.pt").read_bytes()
    torch.save({"format": 1, "network": NETWORK, "state_dict": {"x": torch.zeros(1)}}, "strange.pt")
    assert codec.main(["export", "--checkpoint", "strange.pt", "--output", "other/x.pt"]) == 2
    assert "strange.pt does not fit" in capsys.readouterr().err and not Path("other").exists()

    def refuse_rounded(path: Path) -> None:
        if path != Path(weights):
            raise ValueError("rounded too far")

    monkeypatch.setattr(codec, "load_codec", refuse_rounded)
    assert codec.main([*call, "--force"]) == 2
    assert "rounded too far" in capsys.readouterr().err
    assert [p.name for p in Path("deep").iterdir()] == ["mine.pt"] and Path("deep/mine.pt").read_bytes() == whole


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_weights_cannot_run_code():
    torch.save({"format": 1, "network": Evil()}, "evil.pt")
    with pytest.raises(CheckpointError):
        load_network(Path("evil.pt"))
    assert not Path("pwned").exists()


def test_every_shipped_model_is_listed_and_compresses_a_photograph(capsys):
    from sklearn.datasets import load_sample_image

    assert codec.main(["models"]) == 0
    listed = capsys.readouterr().out
    photo = np.ascontiguousarray(load_sample_image("china.jpg")[100:196:, 200:328])
    save("photo.png", photo)
    assert codec.DEFAULT_MODEL in codec.shipped_models()
    for name in codec.shipped_models():
        assert name in listed
        assert codec.main(["compress", "photo.png", "--output", name, "--model", name]) == 0
        assert codec.main(["decompress", name, "--output", f"{name}-back"]) == 0
        back = np.array(Image.open(f"{name}-back/photo.png"))
        assert np.array_equal(back, photo) or (name.startswith("cpm") and psnr(back, photo) > 15)
        assert next(Path(name).iterdir()).stat().st_size < Path("photo.png").stat().st_size


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.square(one.astype(float) - other).mean())


def test_bench_compares_with_the_machines_codecs_and_names_bad_files(weights, capsys):
    save("in/a.png", pixels(0, 12, 14, 3))
    save("in/b.png", pixels(1, 12, 14))
    call = ["bench", "in", "--output", "out", "--checkpoint", weights, "--quick"]
    assert codec.main(call) == 0
    printed = capsys.readouterr().out
    assert "2 images" in printed and "WebP" in printed and "ours" in printed and "out/bench.csv" in printed
    assert sorted(p.name for p in Path("out").iterdir()) == ["bench.csv", "bench.png"]
    Path("in/c.png").write_bytes(b"hello")
    assert codec.main(call) == 1
    output = capsys.readouterr()
    assert "2 images" in output.out and "in/c.png: damaged" in output.err
    assert codec.main(["bench", "in/c.png", "--output", "none", "--checkpoint", weights]) == 1
    assert not Path("none").exists()


def test_compress_says_what_it_saved(weights, capsys):
    save("a.bmp", np.full((40, 40, 3), 9, np.uint8))
    assert codec.main(["compress", "a.bmp", "--output", "out"]) == 0
    size, bmp = next(Path("out").iterdir()).stat().st_size, Path("a.bmp").stat().st_size
    to_bmp, to_raw = (100 * (1 - size / whole) for whole in (bmp, 4800))
    assert f"{to_bmp:.0f} % smaller than the inputs, {to_raw:.0f} % smaller than raw pixels" in capsys.readouterr().out
    assert codec.main(["compress", "a.bmp", "--output", "out", "--checkpoint", weights]) == 0
    assert "26 % larger than raw pixels" in capsys.readouterr().out  # an untrained network


def test_a_single_large_image_has_a_bar_over_its_tiles(capsys, monkeypatch):
    monkeypatch.setattr("modules.pixel_mlp.codec.MAX_TILE", 16)
    monkeypatch.setattr(codec_files, "MANY_TILES", 4)
    save("in/a.png", pixels(0, 30, 31, 3))
    assert codec.main(["compress", "in", "--output", "out"]) == 0
    assert capsys.readouterr().err.count("tiles") == 2  # the check decodes it
    assert codec.main(["decompress", "out", "--output", "back"]) == 0
    assert capsys.readouterr().err.count("tiles") == 1
    save("in/b.png", pixels(1, 12, 16, 3))
    for names in (["in/b.png"], ["in"]):
        assert codec.main(["compress", *names, "--output", "out", "--force"]) == 0
        assert "tiles" not in capsys.readouterr().err
