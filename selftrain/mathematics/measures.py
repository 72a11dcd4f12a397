"""Whether two values are the same: numbers with their units and percent signs, decimals, ratios and times."""

from __future__ import annotations

from fractions import Fraction

from selftrain.mathematics.exact import exact
from selftrain.mathematics.forms import Ratio, Value
from selftrain.mathematics.nodes import Node, div, mul, num, symbols, walk
from selftrain.mathematics.policy import Policy
from selftrain.mathematics.same import same, within
from selftrain.mathematics.units import unit_of


def same_values(gold: Value, answer: Value, policy: Policy) -> bool:
    if (gold.base or "10") != (answer.base or "10"):
        return False
    gold, answer = _with_letter_unit(gold, answer), _with_letter_unit(answer, gold)
    if "%" in (gold.unit, answer.unit) and gold.unit != answer.unit:
        return _percent(gold, answer, policy)
    units = [unit if any(map(str.isalpha, unit)) else "" for unit in (gold.unit, answer.unit)]
    if not any(units) and gold.unit and answer.unit and gold.unit != answer.unit:
        return False  # Square units for cubic ones.
    if units[0] != units[1] and (all(units) or policy.units == "required"):
        return False
    return _numbers(gold, answer, gold.node, answer.node, policy)


def _with_letter_unit(value: Value, other: Value) -> Value:
    """``5 m`` is 5 metres where the other answer has that unit."""
    if value.unit or not other.unit or value.node.op != "mul":
        return value
    last = value.node.args[-1]
    base, raised = (last.args[0], last.args[1]) if last.op == "pow" else (last, None)
    unit = unit_of(base.name) + (f" {raised.value}" if raised else "")
    return Value(mul(*value.node.args[:-1]), unit) if base.op == "sym" and unit == other.unit else value


def _percent(gold: Value, answer: Value, policy: Policy) -> bool:
    """One of them has a percent sign."""
    if (gold.unit and answer.unit) or policy.units == "required":
        return False
    worth = [div(value.node, num(100)) if value.unit == "%" else value.node for value in (gold, answer)]
    as_value = policy.percent != "unit" and _numbers(gold, answer, worth[0], worth[1], policy)
    return as_value or (policy.percent != "value" and _numbers(gold, answer, gold.node, answer.node, policy))


def _numbers(gold: Value, answer: Value, left: Node, right: Node, policy: Policy) -> bool:
    if (left.op == "matrix") != (right.op == "matrix"):
        return False
    if not symbols(left) and symbols(right) and all(part.op != "fn" for part in walk(right)):
        return False  # sin^2 x + cos^2 x may stand for 1, but not x / x, nor 0 x for 0.
    if same(left, right, policy.symbols):
        return True
    if policy.tolerance and (size := exact(left)) is not None:
        return within(left, right, abs(size) * Fraction(str(policy.tolerance)))
    return _rounds(gold, right, policy) or _rounds(answer, left, policy)


def _rounds(decimal: Value, other: Node, policy: Policy) -> bool:
    """Whether a decimal with many digits is the other number, rounded or cut off there."""
    if (
        decimal.ulp is None
        or not policy.rounded_digits
        or decimal.digits < policy.rounded_digits
        or decimal.unit == "%"
    ):
        return False
    value = exact(other)
    if value is not None and (value / decimal.ulp).denominator == 1:
        return False
    return within(decimal.node, other, decimal.ulp)


def same_ratios(gold: Ratio, answer: Ratio, policy: Policy) -> bool:
    if gold.half or answer.half or (gold.time and answer.time):
        return _times(gold, answer)
    if len(gold.terms) != len(answer.terms):
        return False
    first = gold.terms[0], answer.terms[0]
    return all(
        same(div(one, first[0]), div(other, first[1]), policy.symbols)
        for one, other in zip(gold.terms[1:], answer.terms[1:], strict=True)
    )


def _times(gold: Ratio, answer: Ratio) -> bool:
    if gold.time is None or answer.time is None or gold.time[1] != answer.time[1]:
        return False
    if gold.half and answer.half and gold.half != answer.half:
        return False
    hours = [_hour(gold.time[0], gold.half), _hour(answer.time[0], answer.half)]
    early = gold.time[0] <= 12 and answer.time[0] <= 12 and gold.half != answer.half
    return hours[0] == hours[1] or (early and gold.time[0] == answer.time[0])


def _hour(hour: int, half: str) -> int:
    return hour % 12 + 12 * (half == "pm") if half else hour
