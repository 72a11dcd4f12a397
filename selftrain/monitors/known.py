"""The monitors by name: what each is, what a value out of bounds usually means, and what to do then."""

from __future__ import annotations

from dataclasses import dataclass

TRUST = (
    "its rewards no longer follow the verdicts, so the policy learns to please it; fit it to newer samples (init: "
    "previous), weigh the verdict more (reward.total), or choose on validation which learning rate it needs"
)
LOOK = "look at some samples (selftrain report)"
SHORTER = (
    "responses leave out the solving, or end before it: empty ones, a word of thanks; " + LOOK + ", weigh the verdict "
    "more (reward.total), and take no baseline that is a mean per token or step"
)
LONGER = (
    "length itself is rewarded: padding, checks without end, steps said twice; " + LOOK + ", weigh the verdict more "
    "(reward.total), or take an advantage that does not add rewards up (pure)"
)
REPEATS = (
    "responses repeat themselves, which a reward by steps pays for; " + LOOK + ", go back to an iteration before it "
    "began, and weigh the verdict more (reward.total)"
)
FAR = (
    "the policy has moved far from where it began, where its reward model was fitted; lower optim.lr, take fewer steps "
    "an iteration, or end the run here"
)
NEAR = "the policy hardly moves; raise optim.lr, or take more steps an iteration"


@dataclass(frozen=True)
class Known:
    """One monitor."""

    meaning: str
    """For whoever reads the table."""
    low: str
    """What a value that is too small means, and what to do."""
    high: str
    of_source: bool = False
    """Each reward source with numbers of its own has one."""


EITHER = f"{LOOK} and the iterations before"
BETTER = "it is better than expected: see that the verdict is not among what it reads"

KNOWN: dict[str, Known] = {
    "right": Known(
        "Share of right responses among those that were judged.",
        "the policy solves less than it did; where rewards rise meanwhile, it has found a way around them: go back to "
        "an earlier iteration, weigh the verdict more (reward.total), or lower optim.lr",
        "there is little left to learn from these problems; add harder ones",
    ),
    "tokens": Known(
        "Mean length of a response in tokens; beside it its ratio to the first iteration.", SHORTER, LONGER
    ),
    "tokens_drift": Known("The same against the first iteration: 2 is twice as long.", SHORTER, LONGER),
    "truncated": Known(
        "Share of responses cut off at the length limit.",
        EITHER,
        "responses no longer come to an end; look at some samples (selftrain report), and raise max_tokens only where "
        "they still solve",
    ),
    "repetition": Known("Share of n-grams that stood in their response before.", EITHER, REPEATS),
    "looping": Known("Share of responses in which more than half of all n-grams are such.", EITHER, REPEATS),
    "kl": Known("KL to the start in nats per token, by log-ratios (k1).", NEAR, FAR),
    "kl_k3": Known("The same by an estimate that is never below 0 (k3).", NEAR, FAR),
    "kl_response": Known("KL to the start in nats per response (k1).", NEAR, FAR),
    "kl_response_k3": Known("The same by k3.", NEAR, FAR),
    "reward": Known(
        "Mean reward by the source.", EITHER, f"see whether the share of right ones rose too: {EITHER}", True
    ),
    "pair_accuracy": Known(
        "Share of pairs of a right and a wrong response to one problem in which the right one has the larger reward.",
        TRUST,
        BETTER,
        True,
    ),
    "auc": Known("The same for any right and any wrong response, whatever the problem.", TRUST, BETTER, True),
    "correlation": Known("Of the sum of a response's step rewards with its verdict.", TRUST, BETTER, True),
    "best_right": Known(
        "Share of problems whose best rewarded response is right, of those with both kinds; beside it that by chance.",
        TRUST,
        BETTER,
        True,
    ),
    "last_least": Known(
        "Share of responses whose last step has the least reward; beside it that by chance.",
        EITHER,
        "its numbers tell how a response ended and not which step was wrong; do not choose by the least step "
        "(aggregation: sum)",
        True,
    ),
    "last_least_excess": Known(
        "What that share is above chance.",
        EITHER,
        "its numbers tell how a response ended and not which step was wrong; do not choose by the least step "
        "(aggregation: sum)",
        True,
    ),
    "steps": Known("Mean number of steps of a response; its ratio likewise.", SHORTER, LONGER, True),
    "steps_drift": Known("The same against the first iteration.", SHORTER, LONGER, True),
    "tokens_per_step": Known(
        "Tokens of a step; their ratio likewise.",
        "responses are cut into ever smaller steps, as a reward by steps may pay for; look at some samples "
        "(selftrain report)",
        "everything goes into one huge step, as a baseline that is a mean per step pays for; take one per response",
        True,
    ),
    "tokens_per_step_drift": Known(
        "The same against the first iteration.",
        "responses are cut into ever smaller steps, as a reward by steps may pay for; look at some samples "
        "(selftrain report)",
        "everything goes into one huge step, as a baseline that is a mean per step pays for; take one per response",
        True,
    ),
}
DRIFT = "_drift"
"""How the names of ratios to the first iteration end."""
KL = tuple(name for name in KNOWN if name.startswith("kl"))
