"""Every step of every shipped config on fake CUDA tensors: no tensor is left on the host, nothing waits for the device.

The steps run in a process of their own, tests/fake_cuda.py says how; test_gpu.py takes them on a real device.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shipped_models import ON_THE_CPU, Experiment, all_experiments, on_a_gpu

PROGRAM = Path(__file__).with_name("fake_cuda.py")
Complaints = dict[str, dict[str, str | None]]
EVERY = all_experiments()
pytestmark = pytest.mark.timeout(900)  # all steps run for the first test that asks


@pytest.fixture(scope="module")
def steps() -> Complaints:
    """Experiment or toy -> step -> what is wrong with it."""
    done = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True)
    found: Complaints = {}
    for line in done.stdout.splitlines():
        name, step, wrong = json.loads(line)
        found.setdefault(name, {})[step] = wrong
    assert found, done.stderr  # the exit code says nothing, fake tensors may end the interpreter with an error
    return found


@pytest.mark.parametrize("one", on_a_gpu(), ids=lambda one: one.name)
def test_steps(one: Experiment, steps: Complaints) -> None:
    assert "training_step" in steps.get(one.name, {}), "the program ended before"
    wrong = {step: complaint for step, complaint in steps[one.name].items() if complaint}
    assert not wrong


def test_what_solves_on_the_cpu_says_so_in_its_config() -> None:
    assert {one.method for one in EVERY} >= set(ON_THE_CPU), "no config names it: strike it off the list"
    found = [one.name for one in EVERY if one.method in ON_THE_CPU and one.accelerator != "cpu"]
    assert not found, "accelerator: auto would take a device that has no float64, or gains nothing"


def test_phases_and_overlays_are_found() -> None:
    names = {one.name for one in EVERY}
    phases = {"ecg/narrow_crnn mean", "ecg/narrow_crnn lstm False", "ecg/narrow_crnn lstm True"}
    assert phases | {"l3c/open_images+rgb", "born_again/cifar10_small+dkpp"} <= names


@pytest.mark.parametrize("name", ["Adversarial", "Plain"])
def test_what_is_right_passes(name: str, steps: Complaints) -> None:
    """By hand too: optimizers that take turns, a penalty on gradients, clipping, a schedule."""
    assert steps[name] == {"training_step": None, "validation_step": None}


@pytest.mark.parametrize(
    ("name", "in_training", "in_validation"),
    [
        ("ReadsAValue", "waits for the device at tests/toys_on_cuda.py", "waits for the device"),
        ("AsksATensor", "waits for the device at tests/toys_on_cuda.py", "waits for the device"),
        ("MasksByBool", "waits for the device at tests/toys_on_cuda.py", "waits for the device"),
        ("LeavesATensorBehind", "cuda:0 and cpu", "cuda:0 and cpu"),
        ("MovesWeights", "copies from cpu to cuda:0", None),
        ("IndexesFromTheHost", "copies from cpu to cuda:0", None),
        ("FetchesTheLoss", "copies from cuda:0 to cpu", None),
        ("FailsBackwards", "cuda:0 and cpu", None),
    ],
)
def test_what_is_wrong_is_told(name: str, in_training: str, in_validation: str | None, steps: Complaints) -> None:
    for step, expected in (("training_step", in_training), ("validation_step", in_validation)):
        told = steps[name][step]
        assert told is expected is None or expected in told
