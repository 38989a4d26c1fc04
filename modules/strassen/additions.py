"""Additions of an algorithm, as written and after sharing common sums.

The matrices give r linear forms of A, r of B and n p of the products. A form of k terms takes k - 1 additions or
subtractions; negations are free, since the next sum absorbs them.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np

from modules.strassen.bilinear import Algorithm

MAX_SHARED = 600
"""Entries that are not zero of an algorithm from a file whose sums are shared; the time grows with their cube."""

Form = dict[int, int]
"""Number of a variable -> 1 or -1."""


class Sharing(NamedTuple):
    """Forms after sharing; numbers from ``inputs`` on are the sums of ``pairs``, in order."""

    forms: list[Form]
    pairs: list[tuple[int, int, int]]
    """(x, y, sign): x + sign * y."""
    inputs: int

    @property
    def additions(self) -> int:
        return len(self.pairs) + sum(max(len(form) - 1, 0) for form in self.forms)


def plain_additions(matrix: np.ndarray) -> int:
    """Of the rows of a matrix of -1, 0, 1 as they stand."""
    return int(np.maximum((matrix != 0).sum(1) - 1, 0).sum())


def pair_counts(forms: list[Form]) -> Counter[tuple[int, int, int]]:
    """How many forms hold x + sign * y, up to a common sign; x < y."""
    counts: Counter[tuple[int, int, int]] = Counter()
    for form in forms:
        terms = sorted(form.items())
        counts.update((x, y, a * b) for i, (x, a) in enumerate(terms) for y, b in terms[i + 1 :])
    return counts


def substitute(forms: list[Form], pair: tuple[int, int, int], name: int) -> None:
    """Write variable ``name`` for the pair wherever it occurs, in place."""
    x, y, sign = pair
    for form in forms:
        if x in form and y in form and form[x] * form[y] == sign:
            form[name] = form.pop(x)
            form.pop(y)


def share(matrix: np.ndarray, tries: int = 20, seed: int = 0) -> Sharing:
    """Give sums that occur twice or more a name, the most frequent first, until none is left; ties by lot.

    Args:
        matrix: of -1, 0, 1; each row is a form of the columns.
        tries: the best of so many runs is returned.
        seed: of the lots.
    """
    random, best = np.random.default_rng(seed), None
    for _ in range(tries):
        forms = [{int(c): int(row[c]) for c in np.flatnonzero(row)} for row in matrix]
        found = Sharing(forms, [], matrix.shape[1])
        while counts := pair_counts(forms):
            most = max(counts.values())
            if most < 2:
                break
            choices = sorted(pair for pair, count in counts.items() if count == most)
            pair = choices[random.integers(len(choices))]
            substitute(forms, pair, found.inputs + len(found.pairs))
            found.pairs.append(pair)
        if best is None or found.additions < best.additions:
            best = found
    assert best is not None
    return best


def is_small(algorithm: Algorithm) -> bool:
    """Whether ``count_additions`` takes seconds."""
    return sum(int((part != 0).sum()) for part in algorithm[1:]) <= MAX_SHARED


def count_additions(algorithm: Algorithm) -> tuple[int, int]:
    """As written, and after sharing."""
    parts = (algorithm.first, algorithm.second, algorithm.third)
    return sum(plain_additions(part) for part in parts), sum(share(part).additions for part in parts)
