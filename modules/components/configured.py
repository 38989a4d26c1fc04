"""Networks that remember how they were built."""

import inspect
from typing import Any

from torch import nn


class ConfiguredNetwork(nn.Module):
    """A network whose constructor's arguments, defaults included, stand in ``init_args`` by name.

    Deriving from it is all that a network has to do: its state and these arguments say what it computes, which
    the fingerprint of a codec needs.
    """

    init_args: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> "ConfiguredNetwork":
        network = super().__new__(cls)
        # Partial, since copies are made without arguments and get their attributes afterwards.
        bound = inspect.signature(cls.__init__).bind_partial(network, *args, **kwargs)
        bound.apply_defaults()
        network.__dict__["init_args"] = dict(list(bound.arguments.items())[1:])
        return network
