"""Steps of LightningModules on CUDA tensors without a GPU: shapes, devices and dtypes, no values.

``python tests/fake_cuda.py`` prints a line of JSON for each step: experiment, step, and what is wrong with it,
or null. It finds tensors that stayed on the CPU (device mismatch) and steps that wait for the device: a value that is
read (``.item()``, ``if tensor``, a boolean mask) and, in training, tensors that travel between host and device. It is
a program of its own because fake tensors may end the interpreter with an error at exit.

A module is made on the CPU, as always, and then moved; a fake tensor has no memory. The optimizers are the module's
own, behind Lightning's wrappers, so that manual optimization runs too; only their last act, to change the parameters,
is left out. Autograd's engine asks CUDA's driver for its device, so the graph is walked here instead.
"""

import contextlib
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).parents[1]
CUDA = torch.device("cuda", 0)
STEPS = ("training_step", "validation_step", "predict_step")
Node = Any


class WaitsForTheDeviceError(Exception):
    pass


class NoTravel(TorchDispatchMode):
    """Refuse copies between host and device; single numbers are let pass, torchmetrics makes tensors of its own."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        places: list[Tensor] = []
        if func is torch.ops.aten._to_copy.default and kwargs.get("device") is not None:
            places = [args[0], torch.empty(0, device=kwargs["device"])]
        elif func is torch.ops.aten.copy_.default:
            places = [args[1], args[0]]
        elif func in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default):
            places = [*(index for index in args[1] if index is not None), args[0]]
        kinds = {place.device.type for place in places}
        to_host = bool(places) and places[-1].device.type == "cpu"
        if len(kinds) > 1 and (to_host or places[0].numel() > 1):
            raise WaitsForTheDeviceError(f"{func} copies from {places[0].device} to {places[-1].device}")
        return func(*args, **kwargs)


def depth_first(roots: Sequence[Node]) -> list[Node]:
    """The nodes of a graph, each before those that its gradients go to."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [(root, False) for root in roots]
    while stack:
        node, is_done = stack.pop()
        if is_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(following, False) for following, _ in node.next_functions if following is not None]
    return order[::-1]


def walk(outputs: Sequence[Tensor], seeds: Sequence[Tensor], reached: Callable[[Node, list[Any]], None]) -> None:
    """Call every node of the graph with its gradients, and ``reached`` before."""
    arrived: dict[Node, list[Any]] = {}

    def arrive(node: Node, number: int, gradient: Tensor | None) -> None:
        slots = arrived.setdefault(node, [None] * len(node._input_metadata))
        if gradient is not None:
            gradient = gradient.sum_to_size(node._input_metadata[number].shape)
            slots[number] = gradient if slots[number] is None else slots[number] + gradient

    for output, seed in zip(outputs, seeds, strict=True):
        arrive(output.grad_fn, output.output_nr, seed)
    for node in depth_first([output.grad_fn for output in outputs]):
        gradients = arrived.pop(node, [])
        if all(gradient is None for gradient in gradients):
            continue
        reached(node, gradients)
        if hasattr(node, "variable"):  # a leaf
            continue
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            pairs = zip(gradients, node._input_metadata, strict=True)
            gradients = [torch.zeros(like.shape, device=CUDA) if given is None else given for given, like in pairs]
            results = node.apply(*gradients)  # type: ignore[misc]
        else:
            results = node(*gradients)
        results = results if isinstance(results, tuple) else (results,)
        for (following, number), result in zip(node.next_functions, results, strict=False):
            if following is not None:
                arrive(following, number, result)


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value]


def seeds_of(outputs: list[Tensor], given: Any) -> list[Tensor]:
    seeds = [None] * len(outputs) if given is None else as_list(given)
    return [torch.ones_like(output) if seed is None else seed for output, seed in zip(outputs, seeds, strict=True)]


def backward(
    tensors: Any, gradient: Any = None, retain_graph: Any = None, create_graph: bool = False, **_: Any
) -> None:
    """``torch.autograd.backward`` for fake tensors."""

    def reached(node: Node, gradients: list[Any]) -> None:
        if hasattr(node, "variable"):
            old = node.variable.grad
            node.variable.grad = gradients[0] if old is None else old + gradients[0]

    outputs = as_list(tensors)
    with torch.set_grad_enabled(create_graph):
        walk(outputs, seeds_of(outputs, gradient), reached)


def grad(
    outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: Any = None, create_graph: bool = False, **_: Any
) -> tuple[Any, ...]:
    """``torch.autograd.grad`` for fake tensors."""
    outputs, inputs = as_list(outputs), as_list(inputs)
    found: list[Any] = [None] * len(inputs)

    def reached(node: Node, gradients: list[Any]) -> None:
        for place, wanted in enumerate(inputs):
            is_it = node is wanted.grad_fn if wanted.grad_fn is not None else getattr(node, "variable", None) is wanted
            if is_it:
                found[place] = gradients[wanted.output_nr]

    with torch.set_grad_enabled(create_graph):
        walk(outputs, seeds_of(outputs, grad_outputs), reached)
    return tuple(found)


def connect(module: LightningModule) -> None:
    """A quiet trainer on the CPU, and the module's optimizers, which change nothing."""
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", logger=False, max_steps=10, **quiet)  # type: ignore[arg-type]
    module.trainer = trainer
    trainer.strategy.connect(module)
    trainer.strategy.setup_optimizers(trainer)
    for optimizer in trainer.optimizers:
        optimizer.step = lambda closure=None: closure() if closure is not None else None  # type: ignore[method-assign]


def onto_cuda(module: LightningModule) -> None:
    """Parameters and buffers become fake CUDA tensors, as ``to`` would move them; nothing else does."""
    with mock.patch.object(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True):
        module._apply(lambda tensor: tensor.to(CUDA))
    for part in module.modules():
        if hasattr(part, "_device"):  # Lightning's modules and torchmetrics know where they are
            part._device = CUDA


def moved(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: value.to(CUDA) if isinstance(value, Tensor) else value for key, value in batch.items()}


@contextlib.contextmanager
def no_driver(module: LightningModule) -> Iterator[None]:
    """What would ask CUDA itself, and what Lightning's loops would have prepared, replaced."""
    host = torch.Generator
    with contextlib.ExitStack() as stack:
        for target, name, value in (
            (torch, "Generator", lambda device="cpu": host()),
            (torch.autograd, "backward", backward),
            (torch.autograd, "grad", grad),
            (module, "log", mock.Mock()),
            (module, "log_dict", mock.Mock()),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # its recurrent layers ask the driver
        yield


def run_step(module: LightningModule, name: str, batch: dict[str, Any]) -> None:
    """One step as the trainer takes it, in training with its gradients."""
    module.train(name == "training_step")
    if name != "training_step":
        with torch.no_grad():
            getattr(module, name)(batch, 0)
        return
    module.on_train_start()
    with NoTravel():
        loss = module.training_step(batch, 0)
        loss = loss["loss"] if isinstance(loss, dict) else loss
        if module.automatic_optimization:
            backward(loss)
    missing = [key for key, p in module.named_parameters() if p.grad is not None and p.grad.device != CUDA]
    assert not missing, f"gradients on the host: {missing}"


def where(error: BaseException) -> str:
    """The last line of a method, or of a toy, in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    here = Path(__file__).resolve()
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT) and Path(frame.filename) != here]
    if not own:
        return "its backward pass"
    return f"{Path(own[-1].filename).relative_to(ROOT)}:{own[-1].lineno} ({own[-1].line})"


def complaint(error: Exception) -> str:
    waits = (DataDependentOutputException, DynamicOutputShapeException, WaitsForTheDeviceError)
    kind = "waits for the device" if isinstance(error, waits) else "fails"
    return f"{kind} at {where(error)}: {type(error).__name__} {error}".splitlines()[0]


def own_steps(module: LightningModule) -> list[str]:
    return [name for name in STEPS if getattr(type(module), name) is not getattr(LightningModule, name)]


def complaints(module: LightningModule, batch: dict[str, Any]) -> dict[str, str | None]:
    """Step -> what is wrong with it, for all steps that the module has."""
    found: dict[str, str | None] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        onto_cuda(module)
        connect(module)
        on_device = moved(batch)
        for name in own_steps(module):
            try:
                with no_driver(module):
                    run_step(module, name, on_device)
                found[name] = None
            except Exception as error:
                found[name] = complaint(error)
    return found


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from tests import shipped_models, toys_on_cuda

    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    shipped = shipped_models.on_a_gpu()
    cases = [(one.name, partial(shipped_models.build, one), partial(shipped_models.batch, one)) for one in shipped]
    cases += [(toy.__name__, toy, toys_on_cuda.batch) for toy in toys_on_cuda.TOYS]
    for name, build, batch in cases:
        try:
            found = complaints(build(), batch())
        except Exception as error:  # the others shall have their turn
            found = {"training_step": f"cannot be built: {' '.join(str(error).split())}"}
        for step, wrong in found.items():
            print(json.dumps([name, step, wrong]), flush=True)


if __name__ == "__main__":
    main()
