"""Programs made wrong on purpose."""

from __future__ import annotations

import ast

OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    **{ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
}


class _Returns(ast.NodeTransformer):
    """Of the outermost functions; what is nested stays as it is."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.body = [_NoValue().visit(statement) for statement in node.body]
        return node


class _NoValue(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        return ast.copy_location(ast.Return(ast.Constant(None)), node)


def returning_none(program: str) -> str:
    """The program, its functions returning None in place of every result."""
    return ast.unparse(ast.fix_missing_locations(_Returns().visit(ast.parse(program))))


def first_comparison_flipped(program: str) -> str | None:
    """The program with its first comparison turned round; None where it has none."""
    tree = ast.parse(program)
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    if not found:
        return None
    first = min(found, key=lambda node: (node.lineno, node.col_offset))
    first.ops[0] = OPPOSITE[type(first.ops[0])]()
    return ast.unparse(tree)
