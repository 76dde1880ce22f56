"""Compare one answer with one reference: upstream's metrics, bit for bit, and strict ones.

Sources: Med-MoE `moellava/eval/run_eval.py` and `eval_metrics/evaluate_metrics.py`. Every function returns a share
between 0 and 1 (recall and its kin included); a data set's score is the mean over its questions.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from medmoe.training.evaluation.metrics.answer_normalizer import normalize_answer

_EPSILON = 0.1  # nltk's SmoothingFunction().method1


@dataclass(frozen=True, kw_only=True, slots=True)
class WordOverlap:
    """Hold word-level precision, recall and their harmonic mean."""

    precision: float
    recall: float
    f1: float


def word_overlap(prediction: str, *, reference: str) -> WordOverlap:
    """Return upstream's `calculate_f1score` on normalised words; recall is the paper's "open" number.

    True positives are counted as often as the *prediction* says them, so that repeating a right word raises recall.

    >>> word_overlap("left lung", reference="the left upper lobe").recall
    0.3333333333333333
    >>> word_overlap("left left left", reference="the left upper lobe").recall
    0.6
    >>> word_overlap("right", reference="left")
    WordOverlap(precision=0.0, recall=0.0, f1=0.0)
    """
    said, wanted = _words(prediction), _words(reference)
    hits = sum(count for word, count in said.items() if word in wanted)
    if not hits:
        return WordOverlap(precision=0.0, recall=0.0, f1=0.0)
    precision = hits / (hits + sum(count for word, count in said.items() if word not in wanted))
    recall = hits / (hits + sum(count for word, count in wanted.items() if word not in said))
    return WordOverlap(precision=precision, recall=recall, f1=2 * precision * recall / (precision + recall))


def open_recall(prediction: str, *, reference: str) -> float:
    """Return the headline number for open questions: `word_overlap`'s recall."""
    return word_overlap(prediction, reference=reference).recall


def open_precision(prediction: str, *, reference: str) -> float:
    return word_overlap(prediction, reference=reference).precision


def open_f1(prediction: str, *, reference: str) -> float:
    return word_overlap(prediction, reference=reference).f1


def exact_match_share(prediction: str, *, reference: str) -> float:
    """Return upstream's `calculate_exactmatch`, the paper's EMS: not string equality.

    Different reference words that occur in the prediction, over all words of the prediction.

    >>> exact_match_share("left lung", reference="left upper lung lobe")
    1.0
    >>> exact_match_share("left left", reference="left")
    0.5
    """
    said, wanted = _words(prediction), _words(reference)
    return sum(word in said for word in wanted) / said.total() if said else 0.0


def bleu(prediction: str, *, reference: str, n: int) -> float:
    """Return the individual n-gram BLEU with nltk's smoothing method 1, on raw lower-cased words.

    As nltk's `sentence_bleu` with all weight on `n`: 0 without a common word; brevity penalty exp(1 - r/c); a
    precision without a hit has 0.1 for its numerator.

    >>> bleu("left lung", reference="left lung", n=1)
    1.0
    >>> round(bleu("left", reference="left lung", n=1), 4)
    0.3679
    >>> bleu("left lobe", reference="left lung", n=2)
    0.1
    """
    said, wanted = prediction.lower().split(), reference.lower().split()
    if not set(said) & set(wanted):
        return 0.0
    grams = _grams(said, n)
    hits = (grams & _grams(wanted, n)).total()
    precision = (hits or _EPSILON) / max(1, grams.total())
    return precision * (1.0 if len(said) > len(wanted) else math.exp(1 - len(wanted) / len(said)))


def closed_accuracy_substring(prediction: str, *, reference: str) -> float:
    """Return upstream's "yes/no accuracy": 1 if the lower-cased reference is anywhere inside the lower-cased
    prediction.

    >>> closed_accuracy_substring("The heart is normal.", reference="No")
    1.0
    """
    return float(reference.lower() in prediction.lower())


def strict_accuracy(prediction: str, *, reference: str) -> float:
    """Return 1 if both are the same after normalisation; for open and closed questions alike.

    >>> strict_accuracy("No.", reference="no"), strict_accuracy("normal", reference="no")
    (1.0, 0.0)
    """
    said, wanted = normalize_answer(prediction), normalize_answer(reference)
    if not wanted:  # an answer such as "A" is all article: normalised, it would equal silence
        said, wanted = prediction.strip().lower(), reference.strip().lower()
    return float(said == wanted)


def _words(text: str) -> Counter[str]:
    return Counter(normalize_answer(text).split())


def _grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))
