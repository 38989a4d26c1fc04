"""Every number that a config can give to a class of this project is checked: out of range is one line that names it."""

import importlib
import inspect
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.optim.lr_scheduler import LRScheduler

from modules.components.options import above, at_least, within

ROOT = Path(__file__).parents[1]
ANY_NUMBER = {"seed", "kmeans_seed", "augmentation_seed", "axis", "noise_db"}
"""Options that may be negative."""
MAY_BE_ZERO = {
    "num_workers", "num_dead_leaves", "num_flips", "zeros", "noise", "shared", "fold", "dropout", "lstm_dropout",
    "norm_momentum", "highways", "gamma", "beta", "target_entropy", "correction", "oracle_sweeps", "threshold",
    "context_lr", "target_bits", "distortion_weight", "rate_weight", "kernel_decay", "center_decay", "penalty_weight",
    "mmd_weight", "variance_images", "low_pass", "mse_weight", "feature_weight", "vgg_weight", "num_labels",
    "noise_channels", "seconds", "seconds_per_line", "refresh_rate", "freeze_norm_after", "generations", "lmbda",
    "weight", "num_blocks", "min_epochs",
}  # fmt: skip


def loaded(path: str) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def built(node: Any) -> Any:
    """What a value of a config stands for; optimizers and schedules are made by the trainer."""
    if isinstance(node, dict) and "class_path" in node:
        what = loaded(node["class_path"])
        options = options_of(what, node.get("init_args") or {})
        is_late = isinstance(what, type) and issubclass(what, torch.optim.Optimizer | LRScheduler)
        return partial(what, **options) if is_late or not isinstance(what, type) else what(**options)
    return [built(each) for each in node] if isinstance(node, list) else node


def options_of(what: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Arguments; for what a config interpolates the default, a small number or a name."""
    options = {name: built(value) for name, value in given.items() if not (isinstance(value, str) and "${" in value)}
    for name in given.keys() - options.keys():
        parameter = inspect.signature(what).parameters.get(name)
        if parameter is not None and parameter.default is inspect.Parameter.empty:
            options[name] = 2 if parameter.annotation is int else "folder"
    return options


def is_made_late(path: str) -> bool:
    """Functions, optimizers and schedules, which are called in the course of a training."""
    what = loaded(path)
    return not isinstance(what, type) or issubclass(what, torch.optim.Optimizer | LRScheduler)


def collect(node: Any, found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Class -> the options that the config which says most gives it."""
    if isinstance(node, dict):
        path = str(node.get("class_path", ""))
        if path.startswith(("modules.", "datamodules.", "callbacks.")):
            options = node.get("init_args") or {}
            found[path] = max(found.get(path, {}), options, key=len)
        for each in node.values():
            collect(each, found)
    elif isinstance(node, list):
        for each in node:
            collect(each, found)
    return found


CLASSES: dict[str, dict[str, Any]] = {}
for file in sorted((ROOT / "configs").rglob("*.yaml")):
    collect(yaml.safe_load(file.read_text()), CLASSES)


@pytest.mark.parametrize("path", [path for path in sorted(CLASSES) if not is_made_late(path)])
def test_numbers_out_of_range_are_refused_by_name(path: str) -> None:
    cls = loaded(path)
    with torch.device("meta"):
        options = options_of(cls, CLASSES[path])
        for name, parameter in inspect.signature(cls).parameters.items():
            usual = options.get(name, parameter.default)
            if isinstance(usual, bool) or not isinstance(usual, int | float) or name in ANY_NUMBER:
                continue
            wrong = [-1, *([] if name in MAY_BE_ZERO else [0]), *([math.nan] if isinstance(usual, float) else [])]
            for value in wrong:
                with pytest.raises(ValueError, match=name):
                    cls(**(options | {name: value}))


def test_bounds() -> None:
    at_least(1, a=1, b=None)
    above(0, a=1e-300)
    within(0, 1, a=0, b=1)
    for check, value in ((partial(at_least, 1), 0.9), (partial(above, 0), 0), (partial(within, 0, 1), 1.1)):
        for wrong in (value, -1, math.nan, math.inf, -math.inf):
            with pytest.raises(ValueError, match=r"second must be (at least 1|above 0|0 to 1), got "):
                check(first=1, second=wrong)
