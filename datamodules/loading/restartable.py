"""What commands that write many files say when they end early: the same command goes on."""

import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool


def run_restartable(program: str, work: Callable[[], int]) -> int:
    """The code of ``work``, or, after a line on stderr: 2 for bad arguments, 1 if it was stopped, 130 by Ctrl-C."""
    try:
        return work()
    except (FileNotFoundError, ValueError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except (BrokenProcessPool, OSError) as error:
        print(f"{program}: stopped: {error}; run the same command to continue", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: interrupted; run the same command to continue", file=sys.stderr)
        return 130
