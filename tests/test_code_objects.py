"""What comes back from a program to its tests: values, and objects that stay where they are."""

from __future__ import annotations

import pytest
from sandboxes import judged, problem

SHELF = """
class Shelf:
    def __init__(self, items): self.items = list(items)
    def __iter__(self): return iter(self.items)
    def __getitem__(self, place): return self.items[place]
    def __setitem__(self, place, item): self.items[place] = item
    def __delitem__(self, place): del self.items[place]
    def __repr__(self): return f"Shelf({self.items})"
    def __enter__(self): return self
    def __exit__(self, *_): return True
class Full(ValueError): pass
def shelf(*items): return Shelf(items)
def count():
    number = 0
    while True:
        yield number
        number += 1
def broken():
    yield 1
    raise Full("no more")
def fill(items, more):
    items.extend(more)
    items[0].append(0)
def reverse(items):
    items.reverse()
    return items
"""
OBJECTS = {
    "text": "assert (str(shelf(1)), repr(shelf(1)), f'{shelf(1)}') == ('Shelf([1])',) * 3",
    "instance": "assert isinstance(shelf(1), Shelf) and not isinstance(3, Shelf)",
    "items": "s = shelf(1, 2)\ns[0] = 3\ndel s[1]\nassert list(s) == [3] and 3 in s and s[0] == 3",
    "context": "with shelf(1) as s:\n    assert s.items == [1]",
    "identity": "s = shelf(1)\nwith s as t:\n    assert s is t",
    "next": "c = count()\nassert (next(c), next(c), next(c)) == (0, 1, 2)",
    "endless": "assert [n for n, _ in zip(count(), range(3000))] == list(range(3000))",
    "taken": "c = count()\nfirst = [n for _, n in zip(range(5), c)]\nassert (first, next(c)) == ([0, 1, 2, 3, 4], 5)",
    "broken": "b = broken()\nassert next(b) == 1\ntry:\n    next(b)\nexcept ValueError as e:\n    text = str(e)\n"
    "assert text == 'no more' and list(b) == []",
    "in place": "a = [[1]]\ninner = a[0]\nassert fill(a, [2]) is None\nassert (a, inner) == ([[1, 0], 2], [1, 0])",
    "a copy": "a = [1, 2]\nassert reverse(a) == [2, 1]\nassert a == [1, 2]",
}


@pytest.mark.parametrize("test", OBJECTS)
def test_objects_of_the_program_serve_as_pythons_do(test: str) -> None:
    assert judged(SHELF, problem({"kind": "asserts", "setup": "", "tests": [OBJECTS[test]]})).status == "right"


@pytest.mark.parametrize(
    "value",
    [
        "range(1, 9, 2)",
        "collections.deque([1, (2,)])",
        "decimal.Decimal('1.10')",
        "fractions.Fraction(1, 3)",
        "datetime.date(2020, 2, 29)",
        "datetime.datetime(2020, 2, 29, 1, 2, 3, 4, datetime.timezone.utc)",
        "datetime.timedelta(1, 2, 3)",
        "functools.reduce(lambda inner, _: [inner], range(400), [])",
        "7 ** 9000",
    ],
)
def test_values_of_the_standard_library_come_back(value: str) -> None:
    imports = "import collections, datetime, decimal, fractions, functools"
    tests = problem(
        {"kind": "asserts", "setup": imports, "tests": [f"assert f() == {value}", f"assert f() != {value}"]}
    )
    assert judged(f"def f():\n    return {value}", tests).value == 0.5  # What the setup imports, programs use too.
