"""One clear line and exit code 2 for a user's mistake; PARSIMONY_DEBUG=1 shows the traceback instead."""

import difflib
import errno
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.utilities.exceptions import MisconfigurationException

WRONG_PATHS = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
USER_ERRORS = (ValueError, *WRONG_PATHS, OmegaConfBaseException, MisconfigurationException)
"""What our modules, our data, OmegaConf and Lightning raise where the command or the config is wrong."""

NOISE = re.compile(
    r"Does not validate against|Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>|full_key|object_type"
    r"|Unexpected import path format|Expected a path but (?!\S+\.(ya?ml|json)\b)"
    r"|Not a valid subclass|Subclass types expect|a class path \(str\)|a dict with"
)
SHORTER = (
    (r"Parser key \"([^\"]+)\":", r"\1:"),
    (r"Problem with given class_path '([^']+)':", r"\1:"),
    (r"Type \S.* expects a function or a callable class: ", ""),
    (r"Expected a path but (\S+) either not accessible or invalid", r"no such file: \1"),
    (r"\. Got value: Namespace\(.*\)$", ""),
    (r"in \"<unicode string>\", ", ""),
    (r"^\[Errno \d+\] ", ""),
    (r"raised while resolving interpolation", "in an interpolation"),
)

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

UNUSED = "parameters that were not used in producing the loss"
NOT_HERE = ("`devices` selected with", "Requirement '")
"""Of Lightning, for devices that are no number and for accelerators whose library is missing."""
SHORT_WEIGHTS = re.compile(r"Input type .* should be the same|must have the same dtype")
MIXED = "where --trainer.precision says 16-true, bf16-true or 64-true, use bf16-mixed or 32-true"
UNUSED_FLAG = "--trainer.strategy ddp_find_unused_parameters_true"


def one_line(message: str) -> str:
    """jsonargparse's tree of attempts as one line: the path to the mistake, then the mistake."""
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    given = next((line.removeprefix("Given value: ") for line in lines if line.startswith("Given value: ")), None)
    kept = list(dict.fromkeys(line for line in lines if line and not NOISE.match(line)))
    text = " ".join(kept)
    for pattern, replacement in SHORTER:
        text = re.sub(pattern, replacement, text)
    if "Expected a <class" in text and given and "Got value" not in text:
        text += f", not {given}"
    return text


def from_worker(message: str) -> str:
    """Without the traceback that torch puts before what a DataLoader's worker process raised."""
    found = re.match(r"Caught (\w+) in DataLoader worker process \d+\.\n", message)
    return message.rpartition(f"\n{found[1]}: ")[2] if found else message


def known_names(text: str, options: Iterable[str]) -> Iterable[str]:
    """The names that could have stood where the message ``text`` sees a wrong one."""
    if missing := re.search(r"module '([\w.]+)' has no attribute", text):
        module = sys.modules.get(missing[1])
        return [*dir(module), *(m.name for m in pkgutil.iter_modules(getattr(module, "__path__", [])))]
    paths = re.findall(r"([\w.]+)\.(\w+):(?= )", text)
    cls: Any = getattr(sys.modules.get(paths[-1][0]), paths[-1][1], None) if paths else None
    return inspect.signature(cls).parameters if callable(cls) else options


def with_suggestion(text: str, options: Iterable[str] = ()) -> str:
    """``text`` and the nearest known name, where it complains of an unknown one."""
    wrong = re.search(r"(?:ption|attribute|arguments:|invalid choice:) '?-*([\w.]+)'?", text)
    near = wrong and difflib.get_close_matches(wrong[1], [*known_names(text, options)], n=1)
    return f"{text} (did you mean {near[0]}?)" if near else text


def misfit(message: str) -> str:
    """The list of every name, which load_state_dict makes of another network's weights, as counts and examples."""
    parts = []
    for kind in ("Missing", "Unexpected"):
        if found := re.search(rf"{kind} key\(s\) in state_dict: (.*?)\. *(?:\n|$)", message):
            names = found[1].split(", ")
            parts.append(f"{len(names)} {kind.lower()} ({names[0].strip(chr(34))})")
    if shapes := re.findall(r"size mismatch for ([\w.]+)", message):
        parts.append(f"{len(shapes)} of another shape ({shapes[0]})")
    name = message.split("state_dict for ", 1)[-1].split(":", 1)[0]
    if not parts:
        return f"the checkpoint does not fit {name}: {one_line(message.split(':', 1)[-1])}"
    return f"the checkpoint does not fit {name}: weights {', '.join(parts)}; give its own config, or another file"


def explained(message: str) -> str | None:
    """A line for what users meet as another error of torch or Lightning; None for anything else."""
    if message.startswith("Error(s) in loading state_dict"):
        return misfit(message)
    if UNUSED in message:
        return f"some parameters take no part in a training step, which several devices need to know: {UNUSED_FLAG}"
    if message.startswith(NOT_HERE):
        return one_line(message)
    if SHORT_WEIGHTS.search(message):
        return f"weights and inputs are of different types ({one_line(message)}): {MIXED}"
    return None


def leave(text: str) -> NoReturn:
    print(f"error: {text}", file=sys.stderr)
    raise SystemExit(2)


class PlainErrorParser(LightningArgumentParser):
    """Options in full only: a misspelt one must not pass as an abbreviation."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, allow_abbrev=False)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error or os.environ.get("PARSIMONY_DEBUG"):
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        leave(with_suggestion(one_line(message), [action.dest for action in parser._actions]))


@contextmanager
def one_line_errors() -> Iterator[None]:
    try:
        yield
    except USER_ERRORS as error:
        if os.environ.get("PARSIMONY_DEBUG"):
            raise
        leave(one_line(from_worker(str(error))))
    except OSError as error:
        if os.environ.get("PARSIMONY_DEBUG") or error.errno not in NO_ROOM:
            raise
        where = error.filename or "the run's folder"
        leave(f"{error.strerror}: {where}; make room, then the same command with --ckpt_path last goes on")
    except (RuntimeError, TypeError, ModuleNotFoundError) as error:
        if os.environ.get("PARSIMONY_DEBUG") or not (text := explained(str(error))):
            raise
        leave(text)
