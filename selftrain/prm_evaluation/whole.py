"""All numbers of one source on one set of labelled solutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selftrain.prm_evaluation.calibration import are_probabilities, by_position, calibration, step_auc
from selftrain.prm_evaluation.finding import finding, position_prior
from selftrain.prm_evaluation.protocol import best_threshold, located
from selftrain.prm_evaluation.steps import ScoredSteps, known_steps


def evaluation(
    tested: Sequence[ScoredSteps], validation: Sequence[ScoredSteps], threshold: float | None = None
) -> dict[str, Any]:
    """What is said of the tested solutions; the threshold and the most frequent first wrong step are of the others.

    Args:
        threshold: given, so that nothing is chosen; the place that is most often wrong is then left out where there
            are no others.

    Raises:
        ValueError: no threshold can be chosen on these.
    """
    chosen = best_threshold(validation) if threshold is None else threshold
    log_odds = not are_probabilities([*tested, *validation])
    prior = position_prior((len(one.scores), one.first) for one in validation if one.first >= 0)
    return {
        "solutions": len(tested),
        "problems": len({one.problem for one in tested}),
        "n_validation": len(validation),
        "scores": "log-odds" if log_odds else "probabilities",
        **located(tested, chosen),
        "step_auc": step_auc(known_steps(tested)),
        "finding": finding(tested, chosen, prior if validation else None),
        "calibration": calibration(tested, log_odds=log_odds),
        "from_start": by_position(tested, chosen),
        "from_end": by_position(tested, chosen, from_end=True),
    }
