"""Calibration figures against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from agent_specializer.evaluation.calibration import (
    accuracy_coverage,
    calibration,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
)


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_a_temperature_is_found_again(true_temperature):
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 4, size=(8000, 5))
    noisy = scores / true_temperature + rng.gumbel(size=scores.shape)  # sampling from softmax(scores / T)
    gold = noisy.argmax(1)
    assert fit_temperature(scores, gold) == pytest.approx(true_temperature, rel=0.1)


def test_the_fitted_temperature_beats_its_neighbours_with_any_number_of_choices():
    scores = [[2.0, 0.0], [1.0, 3.0, -1.0], [0.0, 4.0], [5.0, 1.0, 1.0, 0.0]]
    gold = [0, 1, 0, 0]
    best = fit_temperature(scores, gold)
    at = [negative_log_likelihood(scores, gold, best * factor) for factor in (0.8, 1.0, 1.25)]
    assert at[1] == min(at)
    with pytest.raises(ValueError, match="no items"):
        fit_temperature([], [])


def test_calibration_error_of_known_cases():
    assert expected_calibration_error([1.0] * 10, [True] * 10) == 0.0
    assert expected_calibration_error([0.9] * 10, [True] * 5 + [False] * 5) == pytest.approx(0.4)
    # Over- and underconfidence in different bins do not cancel out.
    assert expected_calibration_error([0.9, 0.1], [False, True]) == pytest.approx(0.9)
    assert expected_calibration_error([0.0, 1.0], [False, True]) == 0.0


def test_coverage_takes_the_most_confident_first():
    points = accuracy_coverage([0.2, 0.9, 0.8, 0.4], [False, True, True, False], points=4)
    assert [p["coverage"] for p in points] == [0.25, 0.5, 0.75, 1.0]
    assert [p["accuracy"] for p in points] == pytest.approx([1.0, 1.0, 2 / 3, 0.5])
    assert points[1]["confidence"] == 0.8


def test_any_tool_of_a_request_for_several_is_a_right_first_choice():
    row = {"gold_names": ["a", "b"], "choices": [["b", 3.0], ["c", 1.0], ["a", 0.5]], "confidence": 1.0}
    words = {"gold_names": [], "choices": [[None, 2.0], ["a", 0.0]], "confidence": 1.0}
    found = calibration([row, words])
    assert found is not None
    assert found["n"] == 2
    assert found["ece"] == 0.0
    assert calibration([{"gold_names": ["a"], "choices": [], "confidence": 0.0}]) is None
