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


def labelling_metrics(labels: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {
        "error": clustering_error(labels, truth),
        "nmi": normalized_mutual_information(labels, truth),
        "ari": adjusted_rand_index(labels, truth),
    }
