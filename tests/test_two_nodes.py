"""Two nodes on one machine: two network namespaces joined by a cable, a torchrun in each, gloo between them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.test_train import TOY
from train import main

ROOT = Path(__file__).parents[1]
ADDRESSES = ("10.213.77.1", "10.213.77.2")
SAME = ["--model.init_args.network.init_args.dropout=0", "--trainer.enable_progress_bar=false"]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def nodes() -> Iterator[list[str]]:
    """Names of two namespaces, each with its end of the cable; skips where the machine does not allow them."""
    names = [f"parsimony{os.getpid()}{side}" for side in "ab"]
    cables = [f"pc{os.getpid()}{side}"[:15] for side in "ab"]
    if shutil.which("ip") is None:
        pytest.skip("no ip")
    try:
        ip("netns", "add", names[0])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces: {error.stderr.decode().strip()}")
    try:
        ip("netns", "add", names[1])
        ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        for name, cable, address in zip(names, cables, ADDRESSES, strict=True):
            ip("link", "set", cable, "netns", name)
            ip("-n", name, "link", "set", cable, "name", "cable0")
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable0")
            for device in ("cable0", "lo"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def torchrun(node: str, address: str, command: str, *options: str) -> subprocess.Popen:
    words = ["ip", "netns", "exec", node, sys.executable, "-m", "torch.distributed.run", "--nnodes=2"]
    words += ["--nproc-per-node=1", "--rdzv-id=job7", "--rdzv-backend=c10d", f"--rdzv-endpoint={ADDRESSES[0]}:29471"]
    # Which node holds the store follows from the host's name, which namespaces share, so here it is said.
    words += [
        f"--rdzv-conf=is_host={int(address == ADDRESSES[0])}",
        f"--local-addr={address}",
        str(ROOT / "train.py"),
        command,
        "--config",
        "toy.yaml",
        *SAME,
        *options,
    ]
    words += ["--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.strategy=ddp", "--data.init_args.batch_size=8"]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "cable0"}
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def on_both(nodes: list[str], command: str, *options: str) -> None:
    Path("toy.yaml").write_text(yaml.safe_dump(TOY))
    processes = [torchrun(node, address, command, *options) for node, address in zip(nodes, ADDRESSES, strict=True)]
    outputs = [process.communicate(timeout=900)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)[-4000:]


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_two_nodes_train_and_predict_as_one_process(nodes: list[str]) -> None:
    """The same steps and the same validation, in one run folder; then one file, in that folder."""
    on_both(nodes, "fit")
    assert [path.name for path in Path("runs/toy/one").glob("[0-9]*")] == ["000"]
    main(["fit", "--config", "toy.yaml", *SAME, "--data.init_args.batch_size=16"])
    two, one = (json.loads(Path(f"runs/toy/one/{n}/result.json").read_text())["fit"] for n in ("000", "001"))
    assert two["steps"] == one["steps"] == 8 and two["device"].startswith("2 x cpu")
    assert two["metrics"]["val/loss"] == pytest.approx(one["metrics"]["val/loss"], rel=1e-5)

    checkpoint = "--ckpt_path=runs/toy/one/000/checkpoints/last.ckpt"
    file = Path("runs/toy/one/000/outputs.predict.csv")
    on_both(nodes, "predict", checkpoint)
    of_two, _ = np.loadtxt(file, delimiter=",", skiprows=1), file.unlink()
    main(["predict", "--config", "toy.yaml", *SAME, checkpoint])
    of_one = np.loadtxt(file, delimiter=",", skiprows=1)
    assert of_two[:, 0].tolist() == of_one[:, 0].tolist() == list(range(32))
    assert of_two[:, 1] == pytest.approx(of_one[:, 1], rel=1e-5) and of_one[:, 1].std() > 0
