"""How far a confidence can be trusted: calibration error, accuracy against coverage, and the temperature
that fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

BINS = 15


def probabilities(scores: Sequence[float] | np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """softmax(scores / temperature), (choices,)."""
    from scipy.special import softmax

    return np.asarray(softmax(np.asarray(scores, dtype=float) / temperature))


def negative_log_likelihood(
    scores: Sequence[Sequence[float]], gold_index: Sequence[int], temperature: float
) -> float:
    """Mean of ``-log p(gold)`` in nats over items; each item may have another number of choices."""
    from scipy.special import log_softmax

    return -float(
        np.mean(
            [
                log_softmax(np.asarray(s, dtype=float) / temperature)[g]
                for s, g in zip(scores, gold_index, strict=True)
            ]
        )
    )


def fit_temperature(
    scores: Sequence[Sequence[float]],
    gold_index: Sequence[int],
    *,
    bounds: tuple[float, float] = (0.05, 20.0),
) -> float:
    """The temperature in `bounds` that makes the right choices most likely (Guo et al., 2017, temperature
    scaling).

    Args:
        scores: per item, the scores of all choices in nats.
        gold_index: per item, which of them is right.
    """
    from scipy.optimize import minimize_scalar

    if not len(scores):
        raise ValueError("a temperature cannot be fitted to no items")
    low, high = np.log(bounds)
    found = minimize_scalar(
        lambda log_t: negative_log_likelihood(scores, gold_index, float(np.exp(log_t))),
        bounds=(float(low), float(high)),
        method="bounded",
    )
    return float(np.exp(found.x))


def expected_calibration_error(
    confidences: Sequence[float], right: Sequence[bool], *, bins: int = BINS
) -> float:
    """Mean distance between confidence and accuracy over `bins` bins of equal width, weighted by items."""
    p, hit = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    if not len(p):
        return 0.0
    bin_of = np.clip(np.ceil(p * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, weights=p - hit, minlength=bins)  # sum of (confidence - accuracy) per bin
    return float(np.abs(gaps).sum() / len(p))


def accuracy_coverage(
    confidences: Sequence[float], right: Sequence[bool], *, points: int = 20
) -> list[dict[str, float]]:
    """Accuracy among the most confident items, for coverages 1/points, 2/points, ..., 1.

    Each point is ``{"coverage", "accuracy", "confidence"}``; `confidence` is the threshold that gives the
    coverage.
    """
    p, hit = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    if not len(p):
        return []
    order = np.argsort(-p, kind="stable")
    running = np.cumsum(hit[order]) / np.arange(1, len(p) + 1)
    counts = sorted({int(np.ceil(len(p) * k / points)) for k in range(1, points + 1)})
    return [
        {"coverage": n / len(p), "accuracy": float(running[n - 1]), "confidence": float(p[order[n - 1]])}
        for n in counts
    ]


def calibration(items: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Calibration of one mode from its rows of the side file (see `accuracy.item_row`); None where none has
    scores.

    ``{"n", "ece", "temperature", "ece_at_temperature", "coverage": [...]}``. `temperature` divides the
    scores; it is fitted on these very items, so that `ece_at_temperature` is a bound, not a forecast.
    """
    scores, gold, right, confidences = [], [], [], []
    for item in items:
        labels = [choice[0] for choice in item["choices"]]
        # Several tools may be right to start with: the likeliest of them is the one that is meant.
        places = [labels.index(name) for name in item["gold_names"] or [None] if name in labels]
        if not places:
            continue
        values = [float(choice[1]) for choice in item["choices"]]
        place = max(places, key=values.__getitem__)
        scores.append(values)
        gold.append(place)
        right.append(int(np.argmax(values)) in places)
        confidences.append(float(item["confidence"]))
    if not scores:
        return None
    temperature = fit_temperature(scores, gold)
    fitted = [float(probabilities(s, temperature).max()) for s in scores]
    return {
        "n": len(scores),
        "ece": expected_calibration_error(confidences, right),
        "temperature": temperature,
        "ece_at_temperature": expected_calibration_error(fitted, right),
        "coverage": accuracy_coverage(confidences, right),
    }
