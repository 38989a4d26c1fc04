"""Where data lie. No torch in here."""

import os
import re


def chosen_root(root: str | None = None) -> str:
    """``root`` if given, else the environment variable PARSIMONY_DATA, else ``data``."""
    return root or os.environ.get("PARSIMONY_DATA") or "data"


def is_url(text: str) -> bool:
    """Whether ``text`` is no path of this machine, such as s3://bucket/folder."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None
