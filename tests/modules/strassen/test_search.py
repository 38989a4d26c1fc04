"""Learning to multiply: the equations of an iteration, exact algorithms, resuming, gradients of independent starts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from datamodules.matrix_products import MatrixProducts
from modules.strassen.algorithm_file import read_algorithms
from modules.strassen.bilinear import defects, is_exact, product_tensor
from modules.strassen.levenberg_marquardt import LevenbergMarquardt, Terms, balance, gauss_newton, gradient
from modules.strassen.search import MatmulSearch
from modules.strassen.starts import BilinearStarts
from tests.modules.strassen.test_bilinear import POSTER, STRASSEN
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


def objective(network: BilinearStarts, terms: Terms, magnitudes: list[np.ndarray]) -> torch.Tensor:
    """The formula of the docstring; ``magnitudes`` are what the sum of magnitudes is weighted by."""
    total = []
    for a, b, c, held in zip(*(weight.detach().numpy() for weight in network.weights), magnitudes, strict=True):
        x = np.concatenate([a.ravel(), b.ravel(), c.ravel()])
        error = np.einsum("qo,qa,qb->oab", c, a, b) - product_tensor(*network.sides)
        value = (error**2).sum() + terms.regularization * (x**2).sum() + terms.pull * ((x * (x**2 - 1)) ** 2).sum()
        total.append(value + terms.sparsity * (x**2 / np.sqrt(held**2 + terms.smoothing**2)).sum())
    return torch.tensor(total)


def flat(network: BilinearStarts) -> list[np.ndarray]:
    return list(torch.cat([weight.detach().flatten(1) for weight in network.weights], dim=1).numpy())


PHASES = {
    "free": ({"free_iterations": 100}, Terms(regularization=0.1)),
    "sparse": ({"free_iterations": 0, "sparse_iterations": 100}, Terms(sparsity=0.02, smoothing=0.3)),
    "pull": ({"free_iterations": 0, "sparse_iterations": 0}, Terms(pull=0.01)),
}


@pytest.mark.parametrize("phase", PHASES)
def test_no_iteration_raises_the_objective(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.strassen.levenberg_marquardt.SMOOTHING_DECAY", 1.0)
    options, terms = PHASES[phase]
    network = BilinearStarts(rank=7, starts=6)
    steady = {"decay": 1.0, "growth": 1.0, "pull": 0.01, "sparsity": 0.02}
    optimizer = LevenbergMarquardt(network.parameters(), **steady, **options)  # type: ignore[arg-type]
    assert optimizer.terms(0) == optimizer.terms(7) == pytest.approx(terms)
    first, last = objective(network, terms, flat(network)), None
    for _ in range(25):
        held = flat(network)
        before = objective(network, terms, held)
        optimizer.step()
        last = objective(network, terms, held)
        assert (last <= before + 1e-12).all()
    assert (last < 0.5 * first).all()


@pytest.mark.parametrize("terms", [Terms(0.1), Terms(sparsity=0.2, smoothing=0.3), Terms(pull=0.4)])
def test_a_step_is_the_one_of_all_residuals(terms: Terms) -> None:
    """(J^T J + damping)^-1 J^T e, with J of the defects and of the roots of the other terms, by autograd."""
    network = poster_starts(0.9)
    torch.manual_seed(0)
    weights = [weight.detach() + 0.05 * torch.randn_like(weight) for weight in network.weights]
    target, damping = torch.from_numpy(product_tensor(2, 2, 2)).double(), torch.full((1,), 0.3, dtype=torch.float64)
    x = torch.cat([weight.flatten() for weight in weights])
    held = terms.regularization + terms.sparsity / (x.square() + terms.smoothing**2).sqrt()

    def residuals(x: torch.Tensor) -> torch.Tensor:
        parts = [part.view(1, 7, 4) for part in x.split(28)]
        wells = terms.pull**0.5 * x * (x.square() - 1)
        return torch.cat([defects(*parts, target).flatten(), held.sqrt() * x, wells])

    jacobian = torch.autograd.functional.jacobian(residuals, x)
    matrix = jacobian.T @ jacobian + 0.3 * torch.eye(84, dtype=torch.float64)
    expected = x - torch.linalg.solve(matrix, jacobian.T @ residuals(x))
    moved, after = LevenbergMarquardt(network.parameters()).iterate(weights, damping, terms)
    torch.testing.assert_close(torch.cat([part.flatten() for part in moved]), expected)
    assert float(after) == pytest.approx(0.12)


def test_terms_of_the_phases() -> None:
    options = {"free_iterations": 3, "sparse_iterations": 2, "decay": 0.5, "pull": 0.001, "growth": 1.1}
    optimizer = LevenbergMarquardt(BilinearStarts(starts=1).parameters(), **options)  # type: ignore[arg-type]
    found = [optimizer.terms(i) for i in (0, 1, 3, 4, 5, 6, 100, 100_000)]
    expected = [
        Terms(regularization=0.1),
        Terms(regularization=0.05),
        Terms(sparsity=0.003, smoothing=0.3),
        Terms(sparsity=0.003, smoothing=0.3 * 0.88),
        *(Terms(pull=value) for value in (0.001, 0.0011, 1.0, 1.0)),
    ]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other)
    floor = LevenbergMarquardt(BilinearStarts(starts=1).parameters(), least_regularization=0.01)
    assert floor.terms(99) == Terms(regularization=0.01)


def test_balanced_products_are_the_same_products() -> None:
    torch.manual_seed(0)
    weights = [torch.randn(2, 5, size, dtype=torch.float64) for size in (4, 6, 3)]
    weights[1][0, 2] = 0
    balanced = balance(weights)
    before, after = (torch.einsum("sqa,sqb,sqc->sqabc", *parts) for parts in (weights, balanced))
    torch.testing.assert_close(after, before)
    largest = torch.stack([weight.abs().amax(2) for weight in balanced])
    alive = torch.ones(2, 5, dtype=torch.bool)
    alive[0, 2] = False
    torch.testing.assert_close(largest[0][alive], largest[1][alive])
    torch.testing.assert_close(largest[0][alive], largest[2][alive])
    assert torch.equal(balanced[0][0, 2], weights[0][0, 2])


def poster_starts(*scales: float) -> BilinearStarts:
    """The poster's algorithm, each weight times a number."""
    network = BilinearStarts(starts=len(scales))
    for weight, part in zip(network.weights, (POSTER.first, POSTER.second, POSTER.third.T), strict=True):
        weight.data.copy_(torch.from_numpy(part) * torch.tensor(scales).view(-1, 1, 1))
    return network


def test_hopeless_starts_are_left_alone_after_the_first_phase() -> None:
    """One step of the first phase, which is near enough for the exact start and not for the one of small weights."""
    network = poster_starts(1.0, 0.1)
    optimizer = LevenbergMarquardt(network.parameters(), free_iterations=1, damping=10.0, regularization=1e-3)
    optimizer.step()
    state, before = optimizer.state[network.first], [weight.detach().clone() for weight in network.weights]
    assert state["damping"].tolist() != [0.01, 0.01]
    for _ in range(3):
        optimizer.step()
    assert state["alive"].tolist() == [1, 0] and state["damping"][1] == 0.01 != state["damping"][0]
    for weight, earlier in zip(network.weights, before, strict=True):
        assert torch.equal(weight[1], earlier[1]) and not torch.equal(weight[0], earlier[0])


def test_nothing_is_left_to_do_where_all_starts_are_hopeless() -> None:
    network = poster_starts(0.1, 0.1)
    optimizer = LevenbergMarquardt(network.parameters(), free_iterations=1, damping=10.0)
    optimizer.step()
    before = [weight.detach().clone() for weight in network.weights]
    for _ in range(2):
        optimizer.step()
    assert all(torch.equal(weight, earlier) for weight, earlier in zip(network.weights, before, strict=True))


def test_factors_are_balanced_before_the_pull() -> None:
    network = poster_starts(1.0)
    network.first.data[0, 3] *= 4
    network.second.data[0, 3] /= 4
    optimizer = LevenbergMarquardt(
        network.parameters(), free_iterations=1, sparse_iterations=1, step_length=1e-9, pull=1e-3
    )
    for _ in range(2):
        optimizer.step()
    assert float(network.first[0, 3].abs().max().detach()) == pytest.approx(4)
    optimizer.step()
    assert [float(w[0, 3].abs().max().detach()) for w in network.weights] == [pytest.approx(1)] * 3


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


def test_starts_are_drawn_from_minus_one_to_one() -> None:
    network, other = BilinearStarts(2, 3, 4, rank=5, starts=50, seed=1), BilinearStarts(2, 3, 4, rank=5, starts=50)
    assert [tuple(weight.shape) for weight in network.weights] == [(50, 5, 6), (50, 5, 12), (50, 5, 8)]
    for weight, differs in zip(network.weights, other.weights, strict=True):
        assert -1 <= weight.min() < -0.99 and 0.99 < weight.max() <= 1 and abs(float(weight.mean().detach())) < 0.05
        assert weight.dtype == torch.float64 and not torch.equal(weight, differs)


def test_products_are_ordered_by_their_additions() -> None:
    network = poster_starts(1.0, 1.0, 0.1)
    for weight, part in zip(network.weights, (STRASSEN.first, STRASSEN.second, STRASSEN.third.T), strict=True):
        weight.data[0] = torch.from_numpy(part)
    files = MatmulSearch(network).products()
    first, second = (text for text in files["algorithms.txt"].split("#")[1:])
    assert "24 additions, 15 with" in first and "18 additions, 18 with" in second
    assert files["algorithms.txt"].startswith("2 of 3 starts are exact\ndifferent up to order and signs: 2\n")
    assert "additions: 18 as written, 15 with shared sums" in files["algorithms.txt"]


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
    wrong = {
        "pull": (0, 2),
        "later_damping": (-1,),
        "decay": (2, 0),
        "growth": (0.5, float("inf")),
        "step_length": (0, 1.5),
        "sparsity": (0,),
        "smoothing": (float("nan"),),
        "free_iterations": (-1,),
        "sparse_iterations": (-1,),
    }
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(ValueError, match=f"{name} must be"):
                LevenbergMarquardt(network.parameters(), **{name: value})
    with pytest.raises(ValueError, match="at least 1"):
        BilinearStarts(rank=0)
    with pytest.raises(ValueError, match="sides go up to 16"):
        BilinearStarts(n=17)
    with pytest.raises(ValueError, match="the rank to 4096"):
        BilinearStarts(rank=4097)
    with pytest.raises(ValueError, match="take fewer"):
        BilinearStarts(starts=10**9)
    with torch.device("meta"), pytest.raises(ValueError, match="takes up to 16384: use SGD"):
        LevenbergMarquardt([torch.empty(1, 1000, 4), torch.empty(1, 1000, 8), torch.empty(1, 1000, 8)])
    with pytest.raises(ValueError, match="pairs"):
        MatrixProducts(pairs=0)


def test_other_sides_of_the_data_and_several_devices_are_refused() -> None:
    module = MatmulSearch(BilinearStarts(2, 3, 4, starts=2))
    batch = {"left": torch.zeros(5, 2, 3), "right": torch.zeros(5, 3, 4)}
    assert module.losses(batch).tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"the data have n, m, p = \(2, 3, 2\), the network has \(2, 3, 4\)"):
        module.losses({"left": torch.zeros(5, 2, 3), "right": torch.zeros(5, 3, 2)})
    module._trainer = SimpleNamespace(world_size=2)  # type: ignore[assignment]
    with pytest.raises(ValueError, match="on one device"):
        module.on_fit_start()


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
