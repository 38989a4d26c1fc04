"""How good labels and coefficients are (section 6 of the sheet). Labels are int arrays [N] of any values."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix


def clustering_error(labels: np.ndarray, truth: np.ndarray) -> float:
    """Share of wrong points in [0, 1] under the best assignment of clusters to classes."""
    table = contingency_matrix(truth, labels)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return 1 - float(table[rows, columns].sum()) / len(truth)


def normalized_mutual_information(labels: np.ndarray, truth: np.ndarray) -> float:
    """Mutual information over the geometric mean of the entropies."""
    return float(normalized_mutual_info_score(truth, labels, average_method="geometric"))


def adjusted_rand_index(labels: np.ndarray, truth: np.ndarray) -> float:
    return float(adjusted_rand_score(truth, labels))


def split_by_truth(coefficients: csr_array, truth: np.ndarray) -> tuple[csr_array, np.ndarray]:
    """The matrix without stored zeros, and for each of its entries whether it joins points of one class."""
    matrix = csr_array(coefficients)
    matrix.eliminate_zeros()
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return matrix, truth[rows] == truth[matrix.indices]


def per_row(matrix: csr_array, entries: np.ndarray) -> np.ndarray:
    """Sums [N] over the rows of ``entries``, one number for each stored entry of ``matrix``."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return np.bincount(rows, entries, matrix.shape[0])


def true_false_positives(coefficients: csr_array, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Non-zeros of each point inside and outside of its own class, two arrays [N]."""
    matrix, is_true = split_by_truth(coefficients, truth)
    return per_row(matrix, is_true.astype(float)), per_row(matrix, (~is_true).astype(float))


def feature_detection_error(coefficients: csr_array, truth: np.ndarray) -> float:
    """Mean over points of 1 - |own part of c|_2 / |c|_2; points without coefficients are left out."""
    matrix, is_true = split_by_truth(coefficients, truth)
    squares = matrix.data**2
    total = np.sqrt(per_row(matrix, squares))
    own = np.sqrt(per_row(matrix, squares * is_true))
    coded = total > 0
    return float(np.mean(1 - own[coded] / total[coded])) if coded.any() else float("nan")


def no_false_connections(coefficients: csr_array, truth: np.ndarray) -> bool:
    """True if no coefficient joins two classes; it does not imply correct labels, and wrong labels do not refute it."""
    return bool(split_by_truth(coefficients, truth)[1].all())


def connection_rates(coefficients: csr_array, truth: np.ndarray) -> tuple[float, float]:
    """Share of the possible connections that are made inside of classes and between them (Fig. 4).

    TP_l / (n_l (n_l - 1)) and FP_l / (n_l (N - n_l)), means over the classes l of n_l points; 0 for a class in which
    no such connection is possible. ``stopping`` studies have other rates, relative to the dimensions (Fig. 3).
    """
    true, false = true_false_positives(coefficients, truth)
    _, place, sizes = np.unique(truth, return_inverse=True, return_counts=True)
    inside, outside = (np.bincount(place, counts) / sizes for counts in (true, false))
    return (
        float(np.mean(inside / np.maximum(sizes - 1, 1))),
        float(np.mean(outside / np.maximum(len(truth) - sizes, 1))),
    )


def true_false_l1(coefficients: csr_array, truth: np.ndarray) -> tuple[float, float]:
    """l1 mass of a point's coefficients inside and outside of its own class, means over the points (Fig. 4)."""
    matrix, is_true = split_by_truth(coefficients, truth)
    mass = np.abs(matrix.data)
    return float(mass[is_true].sum() / len(truth)), float(mass[~is_true].sum() / len(truth))


def connection_metrics(coefficients: csr_array, truth: np.ndarray) -> dict[str, float]:
    """What is known about coefficients before they are clustered; ``no_false_connections`` is 1 or 0."""
    true, false = true_false_positives(coefficients, truth)
    rates, masses = connection_rates(coefficients, truth), true_false_l1(coefficients, truth)
    return {
        "fde": feature_detection_error(coefficients, truth),
        "true_positives": float(true.mean()),
        "false_positives": float(false.mean()),
        "true_positive_rate": rates[0],
        "false_positive_rate": rates[1],
        "true_l1": masses[0],
        "false_l1": masses[1],
        "no_false_connections": float(no_false_connections(coefficients, truth)),
    }


def labelling_metrics(labels: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {
        "error": clustering_error(labels, truth),
        "nmi": normalized_mutual_information(labels, truth),
        "ari": adjusted_rand_index(labels, truth),
    }
