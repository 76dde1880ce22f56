"""Compute the area under the ROC curve, binary and one against the rest."""

import numpy as np


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the probability that a random positive scores above a random negative, ties counting half (Mann-Whitney
    U).

    `scores` float [n], `positive` bool [n]. Not a number without a positive or without a negative.

    >>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.75
    >>> auc(np.array([0.5, 0.5]), np.array([True, False]))
    0.5
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return float("nan")
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    # Every member of a tie has the mean of the ranks that the tie takes up.
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    above = ranks[positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def macro_auc(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean over classes of the AUC of one class against the rest; with two classes it is the binary AUC.

    `probabilities` float [n, classes], not a number where a sample did not offer the class (left out for that class);
    `truth` int [n]. Classes without a positive or without a negative are left out; not a number when none remains.
    """
    found = []
    for label in range(probabilities.shape[1]):
        offered = ~np.isnan(probabilities[:, label])
        found.append(auc(probabilities[offered, label], truth[offered] == label))
    known = [value for value in found if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
