"""The pages: whole, and those about the config name every key of the schema, with its default."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
import yaml
from omegaconf import MISSING

from selftrain.config import WRITTEN, to_tree
from selftrain.registry import TABLES, resolve
from selftrain.schema import Learner, RunConfig, Task
from selftrain.train_config import TrainConfig, TrainLearner

DOCS = Path(__file__).resolve().parent.parent / "docs"
ENTRIES = {"grow": "STEP", "examples": "KEY"}
"""What stands for the name of an entry; NAME elsewhere."""
TABLE = re.compile(r"^## (.+)\n\n\| key \| default \| meaning \|\n\|[-|]+\n((?:\|.*\n)+)", re.MULTILINE)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""Language and body of a block of code."""
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]


def section(hint: Any) -> tuple[type | None, bool]:
    """The dataclass of a field, or of the entries of a mapping, and whether it is the latter."""
    several = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for one in several:
        named = get_origin(one) is dict
        kind = get_args(one)[1] if named else one
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            return kind, named
    return None, False


def sections(schema: type, path: str = "") -> Iterator[tuple[str, type]]:
    """The place and the dataclass of every section of the config, at any depth."""
    hints = get_type_hints(schema)
    for field in dataclasses.fields(schema):
        kind, named = section(hints[field.name])
        if kind is not None:
            entry = f".{ENTRIES.get(field.name, 'NAME')}" if named else ""
            place = f"{path}{written(field.name)}{entry}"
            yield place, kind
            yield from sections(kind, f"{place}.")


def headings() -> list[tuple[list[str], type]]:
    """One table per dataclass, and the places it stands for."""
    found: dict[type, list[str]] = {}
    for place, kind in sections(RunConfig):
        found.setdefault(kind, []).append(place)
    return [(places, kind) for kind, places in found.items()]


def rows(schema: type) -> list[dataclasses.Field[Any]]:
    """Fields without those that are sections of their own anyway, and without what stands for a component's options."""
    hints = get_type_hints(schema)
    return [
        field
        for field in dataclasses.fields(schema)
        if (section(hints[field.name])[0] is None or field.default is None)
        and (schema, field.name) != (Task, "options")
    ]


def written(name: str) -> str:
    return WRITTEN.get(name, name)


def default(field: dataclasses.Field[Any]) -> str:
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if value == MISSING:
        return "the task's name" if field.name == "kind" else "must be set"
    return "none" if value is None or value == () else f"`{json.dumps(to_tree(value))}`"


def test_every_key_is_listed_with_its_default() -> None:
    listed = {}
    for places, body in TABLE.findall((DOCS / "keys.md").read_text()):
        cells = [re.split(r" (?<!\\)\| ", line.strip("|\n ")) for line in body.splitlines()]
        listed[places] = [(key.strip("` "), shown.strip()) for key, shown, *_ in cells]
    expected = {
        ", ".join(f"`{place}`" for place in places): [(written(field.name), default(field)) for field in rows(kind)]
        for places, kind in headings()
    }
    assert listed == expected
    assert ("keep", '`"stage"`') in listed["`launch`"] and ("from", "must be set") in listed[
        "`learners.NAME.examples.KEY`"
    ]


def test_every_key_has_a_meaning_and_every_section_a_line() -> None:
    text = (DOCS / "keys.md").read_text()
    assert re.findall(r"^\| `\w+` \| .* \| +\|$", text, re.MULTILINE) == []
    overview = (DOCS / "config.md").read_text()
    for field in dataclasses.fields(RunConfig):
        assert f"\n| `{field.name}` | " in overview, field.name
    assert "`keep: stage`" in overview


def test_every_key_of_a_fit_is_listed_with_its_default() -> None:
    """Those it shares with a run are on the page of all keys."""
    listed = re.findall(r"^\| `(\w+\.\w+)` \| (.+?) \| .+ \|$", (DOCS / "train.md").read_text(), re.MULTILINE)
    hints, shared = get_type_hints(TrainConfig), ("model", "launch", "track")
    places = {name: hints[name] for name in ("run", "data", "learner")}
    expected = [(f"{name}.{own.name}", default(own)) for name, kind in places.items() for own in rows(kind)]
    assert listed == expected and {*places, *shared} == {own.name for own in dataclasses.fields(TrainConfig)}
    assert {own.name for own in dataclasses.fields(TrainLearner)} <= {own.name for own in dataclasses.fields(Learner)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_is_whole(page: Path) -> None:
    """A merge may lose a line: fences come in pairs, a heading stands free, YAML can be read."""
    text = page.read_text()
    outside, inside = FENCED.sub("", text), FENCED.findall(text)
    assert "```" not in outside
    assert [line for line in re.findall(r"[^\n]\n(#+ .+)", outside)] == []
    for language, body in inside:
        if language == "yaml":
            assert isinstance(yaml.safe_load(body), dict), body


def test_verifiers_on_their_page_are_known_with_their_options() -> None:
    seen = set()
    for language, body in FENCED.findall((DOCS / "verifiers.md").read_text()):
        if language == "yaml":
            for tree in verifiers_in(yaml.safe_load(body)):
                component = resolve("verifier", tree["kind"])
                assert tree.keys() - {"kind"} <= {field.name for field in dataclasses.fields(component)}
                seen.add(tree["kind"])
    assert seen == {"format_gate", "weighted", "cascade", "trl_reward", "http"}


def verifiers_in(tree: Any) -> Iterator[dict[str, Any]]:
    """Every mapping with the kind of a verifier of ours, at any depth."""
    if isinstance(tree, dict):
        if tree.get("kind") in TABLES["verifier"]:
            yield tree
        for value in tree.values():
            yield from verifiers_in(value)
