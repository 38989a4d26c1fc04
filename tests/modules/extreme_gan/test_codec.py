"""Files of both modes: exact symbols, masks and labels; what is counted; mistakes; damaged files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modules.components.cityscapes_labels import annotation_paths
from modules.components.coding.container import Container, CorruptFileError, pack, unpack
from modules.extreme_gan.codec import Codec, SideInformation, choose, side_information
from modules.extreme_gan.nets import GCNet, SCNet
from modules.extreme_gan.payload import Choice
from modules.extreme_gan.polygons import Polygon, draw

RNG = np.random.default_rng(0)
IMAGE = np.array(
    Image.fromarray(RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((100, 70), Image.Resampling.BICUBIC)
)
IDS = np.kron(RNG.choice([7, 11, 24000, 24001, 26000], (7, 10)), np.ones((10, 10), int))


def network(selective: bool, **options: int) -> GCNet | SCNet:
    """Untrained, but with codes of all levels."""
    torch.manual_seed(0)
    made = SCNet(2, 34, 4, 1, **options) if selective else GCNet(3, 4, 1, **options)
    with torch.no_grad():
        made.encoder[-1].weight *= 20
        x = torch.from_numpy(IMAGE).permute(2, 0, 1)[None, :, :64, :96] / 127.5 - 1
        made.update_prior(made.encode(x).symbols)
    return made


@pytest.fixture(scope="module")
def gc() -> Codec:
    return Codec(network(False))


@pytest.fixture(scope="module")
def sc() -> Codec:
    return Codec(network(True))


def side(keep: str | None = None, box: str | None = None, ids: np.ndarray = IDS) -> SideInformation:
    return SideInformation(ids, choose(ids, keep, box))


def there_and_back(codec: Codec, container: Container) -> np.ndarray:
    return codec.decompress(unpack(pack(container)))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (16, 16), (33, 47), (70, 100)])
def test_gc_of_every_size(gc: Codec, size: tuple[int, int]) -> None:
    image = IMAGE[: size[0], : size[1]]
    decoded = there_and_back(gc, gc.compress(image))
    assert decoded.shape == image.shape and decoded.dtype == np.uint8
    padded = [(0, max(-side % 16, 32 - side)) for side in size]
    x = np.pad(image, [*padded, (0, 0)], mode="reflect")
    with torch.inference_mode():
        output, symbols = gc.network(torch.from_numpy(x).permute(2, 0, 1)[None].float() / 127.5 - 1)
    expected = ((output[0].permute(1, 2, 0).numpy() + 1) * 127.5).round()[: size[0], : size[1]]
    assert np.abs(decoded - expected).max() <= 1
    assert np.array_equal(gc.read(gc.compress(image)).symbols, symbols[0].numpy())


def test_grayscale_stays_grayscale(gc: Codec) -> None:
    decoded = there_and_back(gc, gc.compress(IMAGE[..., 0]))
    colour = there_and_back(gc, gc.compress(IMAGE[..., :1].repeat(3, -1)))
    assert decoded.shape == (70, 100) and np.abs(decoded - colour.mean(-1)).max() <= 0.5


@pytest.mark.parametrize("wish", [{}, {"keep": "person"}, {"keep": "car,road"}, {"keep": ""}, {"box": "9,17,30,8"}])
def test_sc_decodes_what_it_was_given(sc: Codec, wish: dict[str, str]) -> None:
    container = unpack(pack(sc.compress(IMAGE, {"exif": b"abc"}, side(**wish))))
    code = sc.read(container)
    assert np.array_equal(code.instances, IDS) and container.metadata == {"exif": b"abc"}
    expected = np.zeros((80, 112), bool)
    padded = np.pad(IDS, ((0, 10), (0, 12)), mode="edge")
    if "box" in wish:
        expected[17:25, 9:39] = True
    elif "keep" in wish:
        wanted = {"": [], "person": [24000, 24001], "car,road": [26000, 7]}[wish["keep"]]
        expected = np.isin(padded, wanted)
    else:
        expected[:] = True
    cells = expected.reshape(10, 8, 14, 8).any((1, 3))
    assert np.array_equal(code.keep, cells)
    decoded = sc.decompress(container)
    labels = np.where(padded >= 1000, padded // 1000, padded)
    one_hot = torch.from_numpy(labels[None] == np.arange(34)[:, None, None]).float()
    edges = torch.zeros(80, 112)
    edges[1:] += torch.from_numpy(padded[1:] != padded[:-1])
    edges[:-1] += torch.from_numpy(padded[1:] != padded[:-1])
    edges[:, 1:] += torch.from_numpy(padded[:, 1:] != padded[:, :-1])
    edges[:, :-1] += torch.from_numpy(padded[:, 1:] != padded[:, :-1])
    x = torch.from_numpy(np.pad(IMAGE, ((0, 10), (0, 12), (0, 0)), mode="reflect")).permute(2, 0, 1)[None]
    keep = torch.from_numpy(cells)[None, None].float()
    with torch.inference_mode():
        x_hat = sc.network(x / 127.5 - 1, keep, torch.cat([one_hot, edges.clamp(max=1)[None]])[None]).image
    assert np.abs(decoded - ((x_hat[0].permute(1, 2, 0).numpy() + 1) * 127.5).round()[:70, :100]).max() <= 1


def test_the_file_holds_nothing_of_the_image_outside_the_mask(sc: Codec) -> None:
    container = sc.compress(IMAGE, None, side(box="0,0,8,8"))
    symbols = sc.read(container).symbols
    assert (symbols[:, 1:] == 2).all() and (symbols[:, :, 1:] == 2).all()
    everything = sc.compress(IMAGE, None, side())
    assert len(pack(container)) < len(pack(everything))
    nothing = [sc.compress(image, None, side(keep="")) for image in (IMAGE, IMAGE[::-1].copy())]
    assert pack(nothing[0]) == pack(nothing[1])


def test_symbols_outside_the_mask_change_no_byte(sc: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The norms of the encoder look at the whole image; so what it says of the cells is altered, one by one."""
    kept = sc.read(sc.compress(IMAGE, None, side(box="24,16,30,20"))).keep
    symbols = sc._encode(IMAGE, sc._grid(*IMAGE.shape[:2]))
    files = {}
    for row, column in [(None, None), *np.ndindex(kept.shape)]:
        changed = symbols.copy()
        if row is not None:
            changed[:, row, column] = (changed[:, row, column] + 1) % 5
        monkeypatch.setattr(sc, "_encode", lambda *_, changed=changed: changed)
        files[row, column] = sc.compress(IMAGE, None, side(box="24,16,30,20")).tiles[0].payload
    assert 4 <= kept.sum() < kept.size / 2
    for row, column in np.ndindex(kept.shape):
        assert (files[row, column] != files[None, None]) == kept[row, column]


def test_bytes_are_near_the_bound_or_below(gc: Codec, sc: Codec) -> None:
    big = np.tile(IMAGE[:64, :96], (4, 4, 1))
    payload = gc.compress(big).tiles[0].payload
    assert len(payload) < 1.05 * 3 * 16 * 24 * np.log2(5) / 8
    flat = network(False)
    with torch.no_grad():
        flat.encoder[-1].weight.zero_()
        flat.encoder[-1].bias.zero_()
        flat.update_prior(flat.encode(torch.zeros(1, 3, 64, 64)).symbols)
    codec = Codec(flat)  # a large image of few bytes is no damaged file here
    container = unpack(pack(codec.compress(np.zeros((512, 1024, 3), np.uint8))))
    assert len(container.tiles[0].payload) < 100 and (codec.read(container).symbols == 2).all()


def test_polygons_are_drawn_by_the_decoder(sc: Codec, tmp_path: Path) -> None:
    shapes = [Polygon(7, False, np.array([[0, 0], [100, 0], [100, 70], [0, 70]])),
              Polygon(24, True, np.array([[10, 10], [33, 12], [20, 60]]))]  # fmt: skip
    ids = draw(shapes, 70, 100)
    with_polygons = sc.compress(IMAGE, None, SideInformation(ids, Choice(instances=(24000,)), shapes))
    assert np.array_equal(sc.read(unpack(pack(with_polygons))).instances, ids)
    raster = sc.compress(IMAGE, None, SideInformation(ids, Choice(instances=(24000,))))
    assert len(pack(with_polygons)) < len(pack(raster))
    assert np.array_equal(sc.decompress(with_polygons), sc.decompress(raster))


def test_labels_beside_an_image_of_the_layout(tmp_path: Path) -> None:
    image = tmp_path / "leftImg8bit/val/ulm/ulm_1_leftImg8bit.png"
    paths = annotation_paths(image)
    with pytest.raises(FileNotFoundError, match=r"needs .*gtFine/val/ulm/ulm_1_gtFine_polygons\.json or .*instanceIds"):
        side_information(image, (70, 100))
    paths.instances.parent.mkdir(parents=True)
    Image.fromarray(IDS.astype(np.uint16)).save(paths.instances)
    found = side_information(image, (70, 100), keep="car")
    assert np.array_equal(found.instances, IDS) and found.choice.instances == (26000,) and found.polygons is None
    with pytest.raises(ValueError, match="is no instance map of 100 x 71 pixels"):
        side_information(image, (71, 100))
    objects = [{"label": "car", "polygon": [[0, 0], [200, 0], [200, 140], [0, 140]]}]
    paths.polygons.write_text(json.dumps({"imgHeight": 140, "imgWidth": 200, "objects": objects}))
    found = side_information(image, (70, 100), box="1,2,3,4")
    assert (found.instances == 26000).all() and found.polygons and found.choice.box == (1, 2, 3, 4)
    paths.polygons.unlink()
    paths.instances.write_bytes(paths.instances.read_bytes()[:50])
    with pytest.raises(ValueError, match="is no instance map"):
        side_information(image, (70, 100))


def test_what_the_command_line_asks_for(gc: Codec, sc: Codec, tmp_path: Path) -> None:
    image = tmp_path / "leftImg8bit/val/ulm/ulm_1_leftImg8bit.png"
    paths = annotation_paths(image)
    paths.instances.parent.mkdir(parents=True)
    Image.fromarray(IDS.astype(np.uint16)).save(paths.instances)
    assert gc.side_information(image, (70, 100)) is None
    for wish in ({"keep": "car"}, {"box": "0,0,1,1"}):
        with pytest.raises(ValueError, match="leave out --keep and --box"):
            gc.side_information(image, (70, 100), **wish)
    assert sc.side_information(image, (70, 100)).choice == Choice()
    assert sc.side_information(image, (70, 100), keep="car").choice.instances == (26000,)
    assert sc.side_information(image, (70, 100), box="0,0,1,1").choice.box == (0, 0, 1, 1)


def test_mistakes_are_named(gc: Codec, sc: Codec) -> None:
    for image in (IMAGE.astype(float), IMAGE[..., :2], IMAGE[:0]):
        with pytest.raises(ValueError, match="need uint8 pixels"):
            gc.compress(image)
    with pytest.raises(ValueError, match="are more than the 4194304"):
        gc.compress(np.zeros((2049, 2048), np.uint8))
    with pytest.raises(ValueError, match="needs a label map"):
        sc.compress(IMAGE)
    with pytest.raises(ValueError, match="takes no labels"):
        gc.compress(IMAGE, None, side())
    with pytest.raises(ValueError, match="is not as large as the image"):
        sc.compress(IMAGE[1:], None, side())
    for box in ("-1,0,5,5", "0,0,101,5", "0,0,5,71", "0,0,0,5", "0,0,5,0", "0,-1,5,5"):
        with pytest.raises(ValueError, match="is not within 100 x 70"):
            sc.compress(IMAGE, None, side(box=box))
    with pytest.raises(ValueError, match="--box takes"):
        choose(IDS, box="1,2,3")
    with pytest.raises(ValueError, match="exclude each other"):
        choose(IDS, "car", "1,2,3,4")
    with pytest.raises(ValueError, match="no label is called 'auto'"):
        choose(IDS, "auto")


def test_other_weights_priors_and_arguments_are_other_models(gc: Codec) -> None:
    container = gc.compress(IMAGE)
    other = network(False)
    other.prior += 0.1
    noisy = network(False, noise_channels=2)
    assert len({Codec(n).fingerprint for n in (network(False), other, noisy, network(True))}) == 4
    with pytest.raises(CorruptFileError, match="the file needs model"):
        Codec(other).decompress(container)
    assert np.array_equal(there_and_back(Codec(noisy), Codec(noisy).compress(IMAGE)),
                          Codec(noisy).decompress(Codec(noisy).compress(IMAGE)))  # fmt: skip


def test_precision_is_used(gc: Codec) -> None:
    double = Codec(network(False), precision="float64")
    container = double.compress(IMAGE)
    assert container.precision == "float64" and next(double.network.parameters()).dtype == torch.float64
    assert np.abs(double.decompress(container).astype(int) - gc.decompress(gc.compress(IMAGE))).max() <= 1


@pytest.mark.parametrize("selective", [False, True])
def test_damaged_payloads_never_decode_silently(selective: bool, gc: Codec, sc: Codec) -> None:
    """2,000 damaged files: bytes altered, cut or appended behind a checksum that fits. None decodes to other data."""
    codec = sc if selective else gc
    original = codec.compress(IMAGE, None, side(keep="person") if selective else None)
    rng, refused = np.random.default_rng(1), 0
    for attempt in range(2000):
        payload = bytearray(original.tiles[0].payload)
        kind = attempt % 4
        if kind == 0:
            payload[rng.integers(len(payload))] ^= int(rng.integers(1, 256))
        elif kind == 1:
            del payload[rng.integers(len(payload)) :]
        elif kind == 2:
            payload += rng.bytes(int(rng.integers(1, 9)))
        else:
            start = rng.integers(len(payload))
            payload[start : start + 8] = rng.bytes(len(payload[start : start + 8]))
        tile = original.tiles[0]._replace(payload=bytes(payload))
        try:
            code = codec.read(original._replace(tiles=[tile]))
        except CorruptFileError:
            refused += 1
        else:
            assert bytes(payload) == original.tiles[0].payload and code is not None
    assert refused >= 1990
    file = bytearray(pack(original))
    for _ in range(200):
        damaged = bytearray(file)
        damaged[rng.integers(len(file))] ^= int(rng.integers(1, 256))
        with pytest.raises(CorruptFileError):
            codec.read(unpack(bytes(damaged)))


def test_a_headers_word_allocates_nothing(gc: Codec) -> None:
    original = gc.compress(IMAGE)
    for change in ({"width": 1 << 20, "height": 100}, {"tiles": original.tiles * 2}, {"tiles": []}):
        with pytest.raises(CorruptFileError, match="more tiles or pixels"):
            gc.read(original._replace(**change))
