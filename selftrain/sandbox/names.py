"""Inside the sandbox of the tests: what their names mean, Python's own or the program's."""

from __future__ import annotations

import ast
import builtins
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from selftrain.sandbox.codec import described
from selftrain.sandbox.remote import Program, Unfit

BUILTINS = frozenset(dir(builtins))


def function(program: Program, name: str) -> Any:
    found, value = program.name(name)
    if not found:
        program.break_off(f"the program does not define '{name}'")
    return value


def parsed(text: str, what: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unfit(f"the {what} cannot be read: {': '.join(described(error))}") from error


def namespace(program: Program, setup: ast.Module, tests: Sequence[ast.Module] = (), entry: str = "") -> dict[str, Any]:
    """The globals of tests: modules they use without importing them, and what they take from the program.

    A name that Python has is Python's, so that a program cannot replace ``set`` or ``sorted`` in a test; only where a
    test uses no other name (MBPP has a function called ``sum``) it is the program's.
    """
    trees = [setup, *tests]
    own = set[str]().union(*map(defined, trees))
    wanted = {entry} - {""}
    names: dict[str, Any] = {"__name__": "tests"}
    for tree in trees:
        free = used(tree) - own
        modules = {name for name in free & (sys.stdlib_module_names - BUILTINS) if only_attributes(tree, name)}
        names |= {name: importlib.import_module(name) for name in modules}
        wanted |= free - BUILTINS - modules or (called(tree) & BUILTINS if tree in tests else set())
    for name in sorted(wanted):
        found, value = program.name(name)
        if found:
            names[name] = value
        elif name not in BUILTINS:
            program.break_off(f"the program does not define '{name}'")
    return names


def defined(tree: ast.Module) -> set[str]:
    """Names that code gives a meaning to, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
    return found


def used(tree: ast.Module) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def called(tree: ast.Module) -> set[str]:
    """Names that stand in front of brackets."""
    functions = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {node.id for node in functions if isinstance(node, ast.Name)}


def only_attributes(tree: ast.Module, name: str) -> bool:
    """Whether a name stands nowhere but in front of a dot."""
    owners = [n.value for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)]
    count = sum(isinstance(node, ast.Name) and node.id == name for node in ast.walk(tree))
    return count == sum(isinstance(owner, ast.Name) and owner.id == name for owner in owners)
