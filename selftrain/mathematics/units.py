"""Units of measure and of counting, under one name each, and the words that are no unit at all."""

from __future__ import annotations

_UNITS = """
mm millimeter millimetre | cm centimeter centimetre | m meter metre | km kilometer kilometre | inch in | ft foot feet
yd yard | mi mile | mg milligram | g gram | kg kilogram kilo | lb lbs pound | oz ounce | ton tonne | ml milliliter
millilitre | l liter litre | gal gallon | s sec second | min minute | h hr hour | d day | wk week | mo month | yr year
degree deg | rad radian | dollar usd buck | cent | euro eur | yen | rupee | % percent pct percentage | mph | kph
kmph | hz hertz | n newton | j joule | w watt | v volt | a ampere amp | k kelvin | pa pascal | mol mole | c | f
square sq | cubic cu | per | unit | piece | people person | pm p.m | am a.m | fps | bit | byte | step | way | point
"""
_GROUPS = [group.split() for group in _UNITS.replace("\n", "|").split("|") if group.split()]
_NAMES = {name: group[0] for group in _GROUPS for name in group}
_SYMBOLS = {r"\circ": "degree", "%": "%", r"\$": "dollar", "€": "euro", "£": "pound sterling", "¥": "yen", "₹": "rupee"}
QUOTIENTS = {"mph": "mi / h", "kph": "km / h", "fps": "ft / s"}
"""Of units that are written as one word."""
NO_UNIT = frozenset({"unit", "a", "an", "the", "of", "total", "approximately", "about", "exactly", "only", "each"})
CURRENCY = frozenset({r"\$", "€", "£", "¥", "₹"})
"""Signs that stand before a number."""
WRITTEN = {
    "mm", "cm", "km", "ft", "kg", "lb", "lbs", "oz", "ml", "mg", "mph", "pct", "percent", "in", "min", "hr", "hrs",
    "sec", "inch", "inches", "feet", "foot", "yd", "mi", "deg", "rad", "sq", "cu", "usd",
}  # fmt: skip
"""Units that are known without a text font, though short."""


def unit_of(word: str) -> str:
    """The name of a unit: ``inches`` and ``in`` are ``in``."""
    if word in _SYMBOLS:
        return _SYMBOLS[word]
    plain = word.lower().rstrip(".")
    for form in (plain, plain.removesuffix("s"), plain.removesuffix("es")):
        if form in _NAMES:
            return _NAMES[form]
    return plain.removesuffix("s") if len(plain) > 3 else plain
