"""The collapsed and packed forms: the same outputs, files that come back or are refused, the kernel, the commands."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from modules.components.coding.container import CorruptFileError, digest
from modules.strassen import costs, export
from modules.strassen.collapse import collapse
from modules.strassen.conversion import Rule, SPNNetwork
from modules.strassen.kernels import MAX_COLUMNS, PackedMatrix, PackedProduct, use_packed_kernels
from modules.strassen.layers import SPNLSTM, SPNConv1d, SPNLayer, SPNLinear
from modules.strassen.nets import SPNVGG7, ResNet20, SPNResNet20
from modules.strassen.packed_file import PackedNetwork, load_packed, pack, save_packed, trained_network, unpack
from modules.strassen.packing import pack_ternary, unpack_ternary
from tests.modules.strassen.test_layers import own_model, seeded, small


def trained(network: SPNNetwork, size: int, stage: str = "frozen") -> SPNNetwork:
    """Statistics, scalings and norms that are not what they start as."""
    for _ in range(2):
        network.train()(torch.randn(8, 3, size, size))
    for parameter in network.parameters():
        if parameter.dim() == 1:
            parameter.data.add_(0.3 * torch.rand_like(parameter))
    network.stage = stage
    return network.eval()


@pytest.mark.parametrize("stage", ["quantized", "frozen"])
@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: SPNResNet20(width=4, blocks=1, patch=2, groups=2), 15),
        (lambda: SPNResNet20(width=4, blocks=1, ratio=2.0, quantizer="fixed"), 16),
        (lambda: SPNVGG7(width=4, quantizer="rescaled"), 32),
        (lambda: SPNNetwork(own_model(), [Rule(patch=2)]), 4),
    ],
)
def test_the_collapsed_network_is_the_network(make: object, size: int, stage: str) -> None:
    seeded()
    network = trained(make(), size, stage)  # type: ignore[operator]
    x = torch.randn(2, 3, size, size)
    expected = network(x)
    collapsed = collapse(network)
    torch.testing.assert_close(collapsed(x), expected, atol=1e-5, rtol=1e-5)
    assert not any(isinstance(m, SPNLayer | nn.BatchNorm2d | nn.BatchNorm1d) for m in collapsed.modules())
    for name, tensor in collapsed.state_dict().items():
        if tensor.dtype == torch.int8:
            assert set(tensor.unique().tolist()) <= {-1, 0, 1}, name
    torch.testing.assert_close(use_packed_kernels(collapsed)(x[:1]), expected[:1], atol=1e-5, rtol=1e-5)
    assert network(x).equal(expected)  # the copy took nothing from it


def test_the_collapsed_character_convolution() -> None:
    seeded()
    model = nn.Sequential(SPNConv1d(3, 5, 2), nn.ReLU())
    model(torch.randn(4, 3, 9))
    model[0].advance("frozen")
    model[0].bias.data.normal_()  # type: ignore[union-attr]
    x = torch.randn(2, 3, 7)
    torch.testing.assert_close(collapse(model)(x), model.eval()(x), atol=1e-5, rtol=1e-5)


def test_a_single_layer_collapses_and_takes_any_leading_sizes() -> None:
    seeded()
    layer = SPNLinear(3, 5, 4)
    layer(torch.randn(20, 3))
    layer.eval().advance("frozen")
    for x in (torch.randn(2, 6, 3), torch.randn(3)):
        torch.testing.assert_close(collapse(layer)(x), layer(x), atol=1e-5, rtol=1e-5)


def test_what_does_not_collapse_is_told() -> None:
    with pytest.raises(ValueError, match="a SPNResNet20 without collapsed layers"):
        use_packed_kernels(small())
    with pytest.raises(ValueError, match="only ternary layers"):
        collapse(small())
    lstm = nn.Sequential(SPNLSTM(2, 2, 1, 2))
    lstm[0].advance("frozen")  # type: ignore[operator]
    with pytest.raises(ValueError, match="LSTM"):
        collapse(lstm)


@pytest.mark.parametrize(("base", "per_byte"), [(2, 4), (3, 5)])
@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 37])
def test_packing_comes_back(base: int, per_byte: int, count: int) -> None:
    values = np.random.default_rng(count).integers(-1, 2, count).astype(np.int8)
    data = pack_ternary(values, base)
    assert len(data) == -(-count // per_byte)
    assert (unpack_ternary(data, count, base) == values).all()


def test_packing_is_pinned_and_refuses_other_numbers() -> None:
    assert pack_ternary(np.array([1, 0, -1, 1, 1, 0]), 3) == bytes([2 + 1 * 3 + 0 + 2 * 27 + 2 * 81, 1])
    assert pack_ternary(np.array([1, 0, -1, 1, 1]), 2) == bytes([0b10_00_01_10, 0b10])
    for wrong in ([2], [-2], [0.5]):
        with pytest.raises(ValueError, match="only -1, 0 and 1"):
            pack_ternary(np.array(wrong))
    for data, count, base in ((b"\xf3", 5, 3), (b"\x03", 1, 2), (b"\x09", 1, 3), (b"", 1, 3), (b"\x00\x00", 1, 3)):
        with pytest.raises(ValueError, match="ternary"):
            unpack_ternary(data, count, base)


@pytest.mark.parametrize("shape", [(1, 1), (3, 15), (7, 16), (33, 61)])
def test_the_kernel_against_integers(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    matrix = random.integers(-1, 2, shape)
    x = random.integers(-50, 51, shape[1]).astype(np.float32)
    found = PackedMatrix(torch.from_numpy(matrix).to(torch.int8)).times(x)
    assert (found == matrix @ x.astype(np.int64)).all()


def test_the_kernels_layout_and_precision() -> None:
    seeded()
    matrix = torch.randint(-1, 2, (3, 3000), dtype=torch.int8)
    packed, x = PackedMatrix(matrix), torch.randn(3000)
    assert packed.words.shape == (200, 3) and packed.words.dtype == np.int32
    word = sum((int(t) + 1) * 4**q for q, t in enumerate(matrix[2, 15:30]))
    assert packed.words[1, 2] == word
    before = x.clone()
    expected = (matrix.double() @ x.double()).numpy()
    np.testing.assert_allclose(packed.times(x.numpy()), expected, atol=2e-4)
    np.testing.assert_allclose(packed.times(x.numpy()), expected, atol=2e-4)  # again: nothing is left behind
    assert torch.equal(x, before)


def test_few_columns_go_through_the_kernel_and_many_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded()
    matrix, calls, product = torch.randint(-1, 2, (7, 33), dtype=torch.int8), list[int](), PackedProduct()
    times = PackedMatrix.times
    monkeypatch.setattr(PackedMatrix, "times", lambda self, x: calls.append(len(x)) or times(self, x))
    for columns in (1, MAX_COLUMNS, MAX_COLUMNS + 1):
        x = torch.randn(33, columns)
        torch.testing.assert_close(product(matrix, x), matrix.float() @ x)
    assert calls == [33] * (1 + MAX_COLUMNS) and len(product.packed) == 1
    other = torch.randint(-1, 2, (7, 33), dtype=torch.int8)
    torch.testing.assert_close(product(other, x[:, :2]), other.float() @ x[:, :2])


def test_a_changed_or_lost_matrix_is_not_taken_for_the_old_one() -> None:
    seeded()
    product, x = PackedProduct(), torch.randn(33, 1)
    matrix = torch.randint(-1, 2, (7, 33), dtype=torch.int8)
    product(matrix, x)
    matrix.neg_()
    torch.testing.assert_close(product(matrix, x), matrix.float() @ x)
    address = matrix.data_ptr()
    del matrix
    others = [torch.randint(-1, 2, (7, 33), dtype=torch.int8) for _ in range(20)]
    assert all(other.data_ptr() != address for other in others)
    for other in others:
        torch.testing.assert_close(product(other, x), other.float() @ x)
    copied = copy.deepcopy(product)
    torch.testing.assert_close(copied(others[0].neg_(), x), others[0].float() @ x)


def test_numbers_that_are_not_finite_are_not_exported() -> None:
    network = trained(small(), 16)
    network.spn_layers()[2].second.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        collapse(network)


CONFIG = {"class_path": "modules.strassen.nets.SPNResNet20", "init_args": {"width": 4, "blocks": 1}}


def test_files_come_back(tmp_path: Path) -> None:
    network = trained(small(), 16)
    x = torch.randn(1, 3, 16, 16)
    sizes = {}
    for base in (2, 3):
        sizes[base] = save_packed(tmp_path / "a.pstn", network, CONFIG, base)
        loaded = load_packed(tmp_path / "a.pstn")
        torch.testing.assert_close(loaded(x), network(x), atol=1e-5, rtol=1e-5)
    state = collapse(network).state_dict()
    ternary = [t.numel() for t in state.values() if t.dtype == torch.int8]
    bits = {2: sum(-(-n // 4) for n in ternary), 3: sum(-(-n // 5) for n in ternary)}
    assert sizes[2] - sizes[3] == bits[2] - bits[3]
    real = 4 * sum(t.numel() for t in state.values() if t.dtype != torch.int8)
    header = int.from_bytes((tmp_path / "a.pstn").read_bytes()[14:18], "little")
    assert sizes[3] == 14 + 4 + header + bits[3] + real + 8
    own = SPNNetwork(own_model(), [Rule()])
    trained(own, 4)
    save_packed(tmp_path / "own.pstn", own, {"class_path": "mine.Model", "init_args": {}})
    other = SPNNetwork(own_model(), [Rule()])
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(load_packed(tmp_path / "own.pstn", other)(x), own(x), atol=1e-5, rtol=1e-5)
    with pytest.raises(CorruptFileError, match=r"mine\.Model is no network"):
        load_packed(tmp_path / "own.pstn")
    with pytest.raises(CorruptFileError, match="does not fit a SPNResNet20"):
        load_packed(tmp_path / "own.pstn", small())
    with pytest.raises(FileNotFoundError, match="no file"):
        load_packed(tmp_path / "gone.pstn")


def content() -> PackedNetwork:
    state = {"first": torch.tensor([[1, -1, 0]], dtype=torch.int8), "scale": torch.tensor([1.5, -2.0])}
    return PackedNetwork(CONFIG, state)


def test_every_cut_and_every_altered_byte_is_refused() -> None:
    file = pack(content())
    assert torch.equal(unpack(file).state["first"], content().state["first"])
    for length in range(len(file)):
        with pytest.raises(CorruptFileError):
            unpack(file[:length])
    for place in range(len(file)):
        with pytest.raises(CorruptFileError):
            unpack(file[:place] + bytes([file[place] ^ 0x10]) + file[place + 1 :])
    with pytest.raises(CorruptFileError, match="appended"):
        unpack(file + b"\x00")


def forged(old: bytes, new: bytes, payload: bytes | None = None) -> bytes:
    """A file with a right checksum and a changed header."""
    file = pack(content())
    length = int.from_bytes(file[14:18], "little")
    header = file[18 : 18 + length]
    assert old in header
    header = header.replace(old, new, 1)
    body = len(header).to_bytes(4, "little") + header + (file[18 + length : -8] if payload is None else payload)
    start = file[:6] + len(body).to_bytes(8, "little") + body
    return start + digest(start)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (forged(b"[1, 3]", b"[4294967295, 4294967295]"), "first is longer than the file"),
        (forged(b"[1, 3]", b"[-1, 3]"), "impossible shape"),
        (forged(b"[1, 3]", b"[1.0, 3]"), "impossible shape"),
        (forged(b"[1, 3]", b"[0, 3]"), "impossible shape"),
        (forged(b"[1, 3]", b"[1, 3, 1, 1, 1, 1]"), "impossible shape"),
        (forged(b"[1, 3]", b"[1, 2]"), "no ternary numbers"),
        (forged(b'"real"', b'"code"'), "impossible shape or kind"),
        (forged(b"[2]]", b"[1]]"), "bytes are left"),
        (forged(b'"scale"', b'"first"'), "occurs twice"),
        (forged(b'{"network"', b'{"nutwork"'), "does not say"),
        (forged(b'{"network"', b'["network"'), "does not say"),
        (forged(b"", b"", payload=b"\xff" + bytes(8)), "no ternary numbers"),
    ],
)
def test_forged_files_are_refused(file: bytes, message: str) -> None:
    with pytest.raises(CorruptFileError, match=message):
        unpack(file)


def test_only_networks_of_this_project_are_built(tmp_path: Path) -> None:
    for path in ("os.system", "modules.strassen.nets.nn.Linear", "modules.strassen.nets.SPNNetwork"):
        named = PackedNetwork({"class_path": path, "init_args": {}}, content().state)
        (tmp_path / "a.pstn").write_bytes(pack(named))
        with pytest.raises(CorruptFileError, match="is no network of"):
            load_packed(tmp_path / "a.pstn")
    wrong = PackedNetwork(CONFIG | {"init_args": {"size": 3}}, content().state)
    (tmp_path / "a.pstn").write_bytes(pack(wrong))
    with pytest.raises(CorruptFileError, match="cannot be built"):
        load_packed(tmp_path / "a.pstn")
    with pytest.raises(ValueError, match="base must be"):
        pack(content(), 4)


@pytest.mark.parametrize(
    "arguments", [{"width": 1 << 40}, {"width": 1 << 62}, {"blocks": 1 << 40}, {"ratio": float("inf")}, {"ratio": 1e30}]
)
def test_a_few_words_do_not_take_the_memory(arguments: dict, tmp_path: Path) -> None:
    state = {f"network.{name}": tensor for name, tensor in small().state_dict().items()}
    config = CONFIG | {"init_args": CONFIG["init_args"] | arguments}  # type: ignore[operator]
    (tmp_path / "a.pstn").write_bytes(pack(PackedNetwork(config, content().state)))
    torch.save({"hyper_parameters": {"network": config}, "state_dict": state}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"cannot be built|does not fit"):
        load_packed(tmp_path / "a.pstn")
    with pytest.raises(ValueError, match=r"cannot be built|does not fit"):
        trained_network(tmp_path / "a.ckpt")


def test_kinds_and_names_must_fit(tmp_path: Path) -> None:
    network = trained(small(), 16)
    state = collapse(network).state_dict()
    name = next(name for name, tensor in state.items() if tensor.dtype == torch.int8)
    for changed in (state | {name: state[name].float()}, state | {"more": state[name]}):
        (tmp_path / "a.pstn").write_bytes(pack(PackedNetwork(CONFIG, changed)))
        with pytest.raises(CorruptFileError, match="does not fit"):
            load_packed(tmp_path / "a.pstn")
        with pytest.raises(CorruptFileError, match="does not fit"):
            load_packed(tmp_path / "a.pstn", small())
    skeleton = small()
    save_packed(tmp_path / "a.pstn", network, CONFIG)
    load_packed(tmp_path / "a.pstn", skeleton)
    assert skeleton.stage == "full"  # it is the form alone that is taken from it


def test_export_by_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    network = trained(small(), 16)
    state: dict[str, Tensor] = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"hyper_parameters": {"network": CONFIG}, "state_dict": state}, tmp_path / "a.ckpt")
    assert export.main([str(tmp_path / "a.ckpt"), str(tmp_path / "a.pstn")]) == 0
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(load_packed(tmp_path / "a.pstn")(x), network(x), atol=1e-5, rtol=1e-5)
    assert f"{(tmp_path / 'a.pstn').stat().st_size:,} bytes" in capsys.readouterr().out
    before = (tmp_path / "a.ckpt").read_bytes()
    assert export.main([str(tmp_path / "a.ckpt"), str(tmp_path / "a.ckpt")]) == 2
    assert "the checkpoint itself" in capsys.readouterr().err and (tmp_path / "a.ckpt").read_bytes() == before
    assert costs.main([str(tmp_path / "a.ckpt"), "--size", "16"]) == 0
    assert "total" in capsys.readouterr().out
    for wrong in ([str(tmp_path / "a.ckpt"), "ratio=2"], [str(tmp_path / "gone.ckpt")]):
        assert costs.main(wrong) == 2
        assert capsys.readouterr().err.count("\n") == 1
    plain_config = {"class_path": "modules.strassen.nets.ResNet20", "init_args": {"width": 4, "blocks": 1}}
    state = {f"network.{k}": v for k, v in ResNet20(width=4, blocks=1).state_dict().items()}
    torch.save({"hyper_parameters": {"network": plain_config}, "state_dict": state}, tmp_path / "b.ckpt")
    assert export.main([str(tmp_path / "b.ckpt"), str(tmp_path / "b.pstn")]) == 2
    assert "has no SPN layers" in capsys.readouterr().err


def test_costs_by_command(capsys: pytest.CaptureFixture) -> None:
    assert costs.main(["SPNResNet18", "--size", "224", "ratio=6", "patch=2"]) == 0
    assert "6,721,280" in capsys.readouterr().out
    for wrong, message in (
        (["Nothing"], "is no network"),
        (["nn"], "is no network"),
        (["SPNResNet20", "depth=3"], "depth"),
        (["SPNResNet20", "ratio=2", "ratio=3"], "each name once, got 'ratio'"),
        (["SPNResNet20", "ratio"], "name=value"),
        (["SPNResNet20", "ratio="], "name=value"),
        (["SPNResNet20", "ratio=inf"], "ratio"),
        (["SPNResNet20", "ratio=0.01"], "leaves no hidden unit"),
        (["SPNResNet20", "width=4611686018427387904"], "cannot be built"),
        (["SPNVGG7", "--size", "16"], "does not take images of side 16"),
        (["VGG7", "--size", "4"], "does not take images of side 4"),
        (["ResNet20", "--size", "0"], "at least 1"),
    ):
        assert costs.main(wrong) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
