"""The programs run from a checkout: their configs, sweeps and weights are no part of an installed package."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def require() -> None:
    """Raise a FileNotFoundError where the code has been installed without the files beside it."""
    if not (ROOT / "configs" / "trainer.yaml").is_file():
        raise FileNotFoundError(
            f"{ROOT} holds the code but not configs/: the programs run from a checkout, so clone the project, "
            "`pip install -e .` there and start them in it"
        )
