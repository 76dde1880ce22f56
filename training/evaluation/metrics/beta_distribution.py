"""Compute quantiles of the beta distribution, and of Student's t, by bisection."""

import math
from functools import cache

_BISECTIONS = 60


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Return the value under which a beta distribution has `probability`.

    >>> round(beta_quantile(0.025, 9, 2), 4)
    0.555
    """
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        value = (low + high) / 2
        low, high = (value, high) if beta_cumulative(value, a, b) < probability else (low, value)
    return (low + high) / 2


@cache
def student_quantile(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t with so many degrees of freedom.

    >>> round(student_quantile(9), 3)
    2.262
    """
    share = beta_quantile(0.05, degrees / 2, 0.5)
    return math.sqrt(degrees * (1 / share - 1))


def beta_cumulative(value: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function."""
    if value <= 0 or value >= 1:
        return float(value >= 1)
    if value > (a + 1) / (a + b + 2):
        return 1 - _continued_fraction(1 - value, b, a)
    return _continued_fraction(value, a, b)


def _continued_fraction(value: float, a: float, b: float) -> float:
    """Return the same function by its continued fraction (DLMF 8.17.22), which converges slowly above the mean."""
    fraction = 1.0
    for term in range(int(60 + 5 * math.sqrt(a + b)), 0, -1):
        m, odd = divmod(term, 2)
        if odd:
            factor = -(a + m) * (a + b + m) / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            factor = m * (b - m) / ((a + 2 * m - 1) * (a + 2 * m))
        fraction = 1 + factor * value / fraction
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(scale + a * math.log(value) + b * math.log1p(-value)) / (a * fraction)
