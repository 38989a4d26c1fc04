"""``predict`` under torchrun: two processes write the file that one writes, for methods of every kind of output."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.modules.compressed_domain.small import codec_options, network_options, write_classes
from tests.modules.compressed_domain.small import fit as fit_stage
from tests.modules.compressed_domain.small import last as last_of
from tests.modules.ecg.wfdb_files import write_set
from tests.sweeps.test_parameters import QUICK, cifar
from train import main

ROOT = Path(__file__).parents[1]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d")


class Case(NamedTuple):
    config: str
    options: Callable[[], list[str]]
    """Writes the data into the working folder and tells what makes the run small."""
    file: str
    items: int


def images() -> list[str]:
    """The last batch of one process takes one item, which the other does not have."""
    narrow = "--model.init_args.student.init_args.base_channels=2"
    return [*cifar(Path()), narrow, "--data.init_args.batch_size=3"]


def records() -> list[str]:
    """Of different lengths, with their names."""
    write_set(Path(), 41)
    small = [f"--model.init_args.network.init_args.{size}" for size in ("width=2", "units=3", "layers_per_block=1")]
    return [*small, "--data.init_args.splits=null", "--data.init_args.batch_size=4"]


def codes() -> list[str]:
    write_classes(Path())
    codec = last_of(fit_stage("tiny_codec", *codec_options("network"), folder="codec"))
    small = [*codec_options("codec"), *network_options("network", num_classes=2, channels=4)]
    return [*small, "--data.init_args.batch_size=3", f"--model.init_args.codec_weights={codec}"]


CASES = [
    Case("born_again/cifar10_small.yaml", images, "probabilities.predict.csv", 10),
    Case("ecg/narrow_crnn.yaml", records, "probabilities.predict.csv", 9),
    Case("compressed_domain/tiny_cresnet.yaml", codes, "outputs.predict.csv", 16),
]


def rows(folder: str, file: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Header, the columns of words and indices, and those of numbers."""
    header, *lines = (Path(folder) / "000" / file).read_text().splitlines()
    cells = [line.split(",") for line in lines]
    is_number = ["." in cell for cell in cells[0]]
    columns = np.array(cells)
    return header.split(","), columns[:, [not n for n in is_number]], columns[:, is_number].astype(float)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.config.partition("/")[0])
def test_two_processes_write_the_file_of_one(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARSIMONY_DATA", str(Path.cwd()))
    config = ["--config", str(ROOT / "configs" / case.config)]
    words = [*config, *case.options(), *QUICK, "--trainer.enable_progress_bar=false"]
    main(["fit", *words, "--run.dir=fit", "--trainer.limit_train_batches=1", "--trainer.max_epochs=1"])
    words += ["--ckpt_path", "fit/000/checkpoints/last.ckpt"]
    main(["predict", *words, "--run.dir=one"])
    command = [*TORCHRUN, str(ROOT / "train.py"), "predict", *words, "--run.dir=two", "--trainer.devices=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    header, names, numbers = rows("one", case.file)
    header_of_two, names_of_two, numbers_of_two = rows("two", case.file)
    assert header_of_two == header and np.array_equal(names_of_two, names)
    assert names[:, 0].tolist() == [str(number) for number in range(case.items)]
    assert np.allclose(numbers_of_two, numbers, rtol=1e-4, atol=1e-6) and numbers.std() > 0
    assert [path.name for path in Path("two").glob("[0-9]*")] == ["000"]
    assert json.loads(Path("two/000/result.json").read_text())["predict"]["device"].startswith("2 x cpu")
