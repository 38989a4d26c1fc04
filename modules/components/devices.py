"""Devices that a user names."""

import torch


def usable_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: in one line, if this machine or this PyTorch has none.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # each kind of device has its own
        raise ValueError(f"no device {name!r} here: {str(error).partition(chr(10))[0]}") from error
    return device
