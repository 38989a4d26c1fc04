"""Learning to multiply: the equations of an iteration, exact algorithms, resuming, gradients of independent starts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from datamodules.matrix_products import MatrixProducts
from modules.strassen.algorithm_file import read_algorithms
from modules.strassen.bilinear import defects, is_exact, product_tensor
from modules.strassen.levenberg_marquardt import LevenbergMarquardt, gauss_newton, gradient
from modules.strassen.search import MatmulSearch
from modules.strassen.starts import BilinearStarts
from tests.modules.strassen.test_bilinear import POSTER
from train import main

ROOT = Path(__file__).parents[3]


def test_gauss_newton_against_the_jacobian() -> None:
    network = BilinearStarts(2, 3, 1, rank=4, starts=2, seed=3)
    weights = [weight.detach() for weight in network.weights]
    target = torch.from_numpy(product_tensor(2, 3, 1)).double()
    sizes = [weight[0].numel() for weight in weights]
    for start in range(2):

        def errors(x: torch.Tensor) -> torch.Tensor:
            parts = [part.view(1, 4, -1) for part in x.split(sizes)]
            return defects(*parts, target).flatten()

        x = torch.cat([weight[start].flatten() for weight in weights])
        jacobian = torch.autograd.functional.jacobian(errors, x)
        torch.testing.assert_close(gauss_newton(*weights)[start], jacobian.T @ jacobian)
        torch.testing.assert_close(gradient(*weights, defects(*weights, target))[start], jacobian.T @ errors(x))


def objective(optimizer: LevenbergMarquardt, network: BilinearStarts, terms: tuple[float, float]) -> torch.Tensor:
    """The formula of the docstring."""
    total = []
    for a, b, c in zip(*(weight.detach().numpy() for weight in network.weights), strict=True):
        x = np.concatenate([a.ravel(), b.ravel(), c.ravel()])
        error = np.einsum("qo,qa,qb->oab", c, a, b) - product_tensor(*network.sides)
        total.append((error**2).sum() + terms[0] * (x**2).sum() + terms[1] * ((x * (x**2 - 1)) ** 2).sum())
    return torch.tensor(total)


@pytest.mark.parametrize("free_iterations", [100, 0])
def test_no_iteration_raises_the_objective(free_iterations: int) -> None:
    network = BilinearStarts(rank=7, starts=6)
    optimizer = LevenbergMarquardt(
        network.parameters(), free_iterations=free_iterations, decay=1.0, growth=1.0, pull=0.01
    )
    terms = optimizer.weights_of_terms(0)
    assert terms == ((0.1, 0.0) if free_iterations else (0.0, 0.01))
    values = [objective(optimizer, network, terms)]
    for _ in range(25):
        optimizer.step()
        values.append(objective(optimizer, network, terms))
    assert (torch.stack(values).diff(dim=0) <= 1e-12).all()
    assert (values[-1] < 0.5 * values[0]).all()


def test_regularisation_falls_and_the_pull_grows() -> None:
    optimizer = LevenbergMarquardt(BilinearStarts(starts=1).parameters(), free_iterations=3, decay=0.5)
    found = [optimizer.weights_of_terms(i) for i in (0, 1, 3, 4, 200)]
    assert found == [(0.1, 0.0), (0.05, 0.0), (0.0, 1e-3), (0.0, pytest.approx(1.1e-3)), (0.0, 1.0)]
    floor = LevenbergMarquardt(BilinearStarts(starts=1).parameters(), least_regularization=0.01)
    assert floor.weights_of_terms(100) == (0.01, 0.0)


def test_starts_do_not_depend_on_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    together = BilinearStarts(rank=7, starts=5)
    optimizer = LevenbergMarquardt(together.parameters())
    alone = BilinearStarts(rank=7, starts=1)
    for weight, part in zip(alone.weights, together.weights, strict=True):
        weight.data.copy_(part.data[3:4])
    single = LevenbergMarquardt(alone.parameters())
    for i in range(12):
        if i == 6:
            monkeypatch.setattr("modules.strassen.levenberg_marquardt.CHUNK_NUMBERS", 1)  # one start at a time
        optimizer.step()
        single.step()
    for weight, part in zip(alone.weights, together.weights, strict=True):
        torch.testing.assert_close(weight[0], part[3])


def test_gradients_of_starts_are_separate() -> None:
    module = MatmulSearch(BilinearStarts(starts=3))
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign,assignment]
    batch = next(iter(MatrixProducts(pairs=8, batch_size=4).train_dataloader()))
    module.training_step(batch, 0).backward()
    network = module.network
    a = batch["left"].mT.flatten(1)
    b = batch["right"].mT.flatten(1)
    c = (batch["left"] @ batch["right"]).mT.flatten(1)
    for s in range(3):
        first, second, third = (weight[s].detach().clone().requires_grad_() for weight in network.weights)
        error = ((a @ first.T) * (b @ second.T)) @ third - c
        (0.5 * error.square().mean()).backward()
        torch.testing.assert_close(first.grad, network.first.grad[s])
        torch.testing.assert_close(third.grad, network.third.grad[s])


def test_stages_and_clipping() -> None:
    network = BilinearStarts(starts=2, clip=True)
    network.first.data.mul_(3)
    left, right = torch.randn(3, 2, 2), torch.randn(3, 2, 2)
    network(left, right)
    assert network.first.abs().max() == 1
    for weight, part in zip(network.weights, (POSTER.first, POSTER.second, POSTER.third.T), strict=True):
        weight.data.copy_(torch.from_numpy(part) * 0.6)
    network.stage = "quantized"
    torch.testing.assert_close(network(left, right)[1], (left @ right).double(), atol=1e-6, rtol=1e-6)
    assert network.exact().tolist() == [True, True] and is_exact(network.algorithms()[0])
    free = BilinearStarts(starts=2)
    free.first.data.mul_(3)
    free(left, right)
    assert free.first.abs().max() > 1


def test_wrong_weights_and_options_are_refused() -> None:
    network = BilinearStarts(starts=2)
    with pytest.raises(ValueError, match="three weights"):
        LevenbergMarquardt([network.first, network.second])
    for options in ({"pull": 0}, {"damping": -1}, {"decay": 2}, {"growth": 0.5}, {"step_length": 0}):
        with pytest.raises(ValueError, match="must be"):
            LevenbergMarquardt(network.parameters(), **options)
    with pytest.raises(ValueError, match="at least 1"):
        BilinearStarts(rank=0)
    with pytest.raises(ValueError, match="pairs"):
        MatrixProducts(pairs=0)


def fit(name: str, *options: str) -> Path:
    main(["fit", "--config", str(ROOT / "configs" / "strassen" / name), "--run.dir", "runs/x", *options])
    return sorted(Path("runs/x").iterdir())[-1]


def metrics(run: Path) -> dict[str, Any]:
    return yaml.safe_load((run / "result.json").read_text())["fit"]["metrics"]


STARTS = "--model.init_args.network.init_args.starts"
RANK = "--model.init_args.network.init_args.rank"


def test_seven_multiplications_are_found() -> None:
    run = fit("matmul_2x2.yaml", STARTS, "20")
    found = metrics(run)
    assert found["exact_share"] >= 0.8
    algorithms = read_algorithms(run / "algorithms.json")
    assert len(algorithms) == found["different"] and all(map(is_exact, algorithms))
    assert f"{round(20 * found['exact_share'])} of 20 starts are exact" in (run / "algorithms.txt").read_text()


def test_six_multiplications_are_not() -> None:
    run = fit("matmul_2x2.yaml", STARTS, "10", RANK, "6")
    assert metrics(run)["exact_share"] == 0 and read_algorithms(run / "algorithms.json") == []


def test_a_resumed_search_is_the_same_search() -> None:
    options = (STARTS, "4", "--trainer.check_val_every_n_epoch", "1")
    whole = fit("matmul_2x2.yaml", *options, "--trainer.max_epochs", "4")
    half = fit("matmul_2x2.yaml", *options, "--trainer.max_epochs", "2")
    last = half / "checkpoints" / "last.ckpt"
    rest = fit("matmul_2x2.yaml", *options, "--trainer.max_epochs", "4", "--ckpt_path", str(last))
    states = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, rest)]
    for name, value in states[0]["state_dict"].items():
        assert torch.equal(value, states[1]["state_dict"][name])
