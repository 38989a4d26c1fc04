"""A fingerprint changes with everything that changes outputs, and with nothing else."""

import copy
import resource
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modules.components.checkpoint_file import CheckpointError
from modules.components.coding.model_file import fingerprint, load_network, save_weights, take_weights
from modules.components.configured import ConfiguredNetwork
from modules.l3c.nets import L3CNet, RGBNet, RGBSharedNet


class Scaled(ConfiguredNetwork):
    def __init__(
        self, scale: float, shifts: tuple[float, ...] = (1.0,), inner: ConfiguredNetwork | None = None
    ) -> None:
        super().__init__()
        self.scale, self.shifts, self.inner = scale, shifts, inner
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x * self.weight + sum(self.shifts)


class Other(Scaled):
    pass


def l3c(**arguments) -> L3CNet:
    torch.manual_seed(0)
    return L3CNet(8, 1, **arguments)


def test_arguments_that_change_outputs_but_no_weight_change_the_fingerprint():
    plain = fingerprint(l3c())
    assert fingerprint(l3c(mean_unit=64.0)) != plain
    assert fingerprint(l3c()) == plain == fingerprint(l3c(mean_unit=1))
    assert fingerprint(RGBNet(8, 1)) != fingerprint(RGBSharedNet(8, 1))


def test_any_network_gets_it_for_free():
    plain = fingerprint(Scaled(2.0))
    assert fingerprint(Scaled(2)) == plain == fingerprint(Scaled(scale=2.0, shifts=[1]))  # type: ignore[arg-type]
    different = [Scaled(3.0), Scaled(2.0, (1.0, 2.0)), Scaled(2.0, inner=Scaled(1.0)), Scaled(2.0, inner=Scaled(2.0))]
    assert len({fingerprint(network) for network in different} | {plain, fingerprint(Other(2.0))}) == 6
    assert fingerprint(copy.deepcopy(different[0])) == fingerprint(different[0])
    with pytest.raises(TypeError, match="plain arguments, not object"):
        fingerprint(Scaled(object()))  # type: ignore[arg-type]


def test_names_shapes_and_values_of_the_state_count():
    plain = fingerprint(Scaled(2.0))
    network = Scaled(2.0)
    with torch.no_grad():
        network.weight[1] = 1.0001
    assert fingerprint(network) != plain
    network = Scaled(2.0)
    network.weight = torch.nn.Parameter(torch.ones(2, 1))
    assert fingerprint(network) != plain
    network = Scaled(2.0)
    network.heavy = network.weight
    del network.weight
    assert fingerprint(network) != plain
    assert fingerprint(Scaled(2.0).double()) == plain


def test_arguments_are_kept_with_their_defaults():
    assert RGBNet(8, num_scales=2).init_args == {"channels": 8, "num_blocks": 8, "num_scales": 2, "num_mixtures": 10}


def test_weights_come_back_and_networks_without_arguments_are_refused():
    network = l3c(mean_unit=64.0)
    config = {"class_path": "modules.l3c.nets.L3CNet", "init_args": {"channels": 8, "num_blocks": 1, "mean_unit": 64}}
    save_weights(Path("full.pt"), config, network.state_dict(), half=False)
    assert fingerprint(load_network(Path("full.pt")).network) == fingerprint(network)
    block = {"class_path": "modules.l3c.nets.ResidualBlock", "init_args": {"channels": 8}}
    save_weights(Path("block.pt"), block, {}, half=False)
    with pytest.raises(CheckpointError, match="no network that a codec"):
        load_network(Path("block.pt"))


def test_weights_go_over_into_an_equal_network_and_into_no_other():
    network = l3c()
    config = {"class_path": "modules.l3c.nets.L3CNet", "init_args": {"channels": 8, "num_blocks": 1}}
    save_weights(Path("full.pt"), config, network.state_dict(), half=False)
    torch.manual_seed(1)
    other = L3CNet(8, 1)
    assert fingerprint(other) != fingerprint(network)
    take_weights(other, "full.pt")
    assert fingerprint(other) == fingerprint(network)
    with pytest.raises(CheckpointError, match=r"holds a L3CNet: give weights or a checkpoint of a RGBNet"):
        take_weights(RGBNet(8, 1), "full.pt")
    with pytest.raises(CheckpointError, match=r"full\.pt is another .*\(channels 8, not 16\): make them equal"):
        take_weights(L3CNet(16, 1), "full.pt")
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        take_weights(other, "none.pt")


def refused(content: object, message: str) -> None:
    torch.save(content, "strange.pt")
    with pytest.raises(CheckpointError, match=r"strange\.pt") as error:
        load_network(Path("strange.pt"))
    assert message in str(error.value) and len(str(error.value).splitlines()) == 1


def weights(state: object = None, class_name: str = "L3CNet", **arguments) -> dict:
    network = {
        "class_path": f"modules.l3c.nets.{class_name}",
        "init_args": {"channels": 8, "num_blocks": 1} | arguments,
    }
    return {"format": 1, "network": network, "state_dict": l3c().state_dict() if state is None else state}


ZERO = torch.zeros(1)
CLASS = {"class_path": "modules.l3c.nets.L3CNet"}
CYCLE: list = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"hyper_parameters": {}}, "which network"),
        ({"hyper_parameters": "x", "state_dict": {}}, "which network"),
        ({"hyper_parameters": {"network": CLASS}}, "no weights by name"),
        ({"hyper_parameters": {"network": CLASS}, "state_dict": {1: ZERO}}, "no weights by name"),
        ({"hyper_parameters": {"network": CLASS}, "state_dict": [1]}, "no weights by name"),
        ({"format": 1, "network": CLASS, "state_dict": {"a": 5}}, "holds a int as weight a"),
        ({"format": 1, "network": CLASS | {"init_args": 5}, "state_dict": {}}, "by name what"),
        ({"format": 1, "network": CLASS | {"init_args": {1: 5}}, "state_dict": {}}, "by name what"),
        (weights(channels=torch.tensor([8.0])), "plain arguments, not Tensor"),
        (weights(sigma=10**400), "not plain"),
        (weights(sigma=CYCLE), "not plain"),
        (weights(num_levels=1), "num_levels must be at least 2, got 1"),
        (weights({}, "Pyramid"), "unexpected keyword"),
        ({"format": 1, "network": {"class_path": "modules.l3c.nets.Pyramid"}, "state_dict": {}}, "no weights"),
        (weights({}, "functional"), "no network that a codec"),
        (weights(l3c().state_dict() | {"more": ZERO}), "weight more is (1,), not known"),
        (
            weights({n: t for n, t in l3c().state_dict().items() if n != "rescale.bias"}),
            "rescale.bias is missing, not (3,)",
        ),
        (weights(l3c().state_dict() | {"rescale.bias": torch.zeros(1, 3)}), "rescale.bias is (1, 3), not (3,)"),
        (weights(l3c().state_dict() | {"rescale.bias": ZERO.expand(10**9)}), "smaller than the weights"),
    ],
)
def test_strange_files_are_refused_in_one_line(content, message):
    refused(content, message)


@pytest.mark.parametrize(
    "arguments",
    [
        {"channels": 10_000},
        {"num_blocks": 60_000},
        {"num_scales": 10**9},
        {"num_levels": 10**11},
        {"num_blocks": 10**12},
    ],
    ids=str,
)
def test_what_a_small_file_asks_for_is_never_built(arguments):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(weights(**arguments), "does not fit")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
