"""The tree of one problem as a person looks at it: lines of text, or a picture.

Both show, for each node, what the value function says of it (V), the mean over its visits (Q) and their number (N), its
share of right completions (MC) and its state, right and wrong ends told apart, and the way to the chosen answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape

from selftrain.labelling.trees import path
from selftrain.types import TreeNode

ROW, INDENT, MARGIN, LEFT_TEXT, CHARACTER, FONT = 22, 18, 12, 12, 7.3, 12
"""Of the picture, in pixels; the width of a character is that of a monospaced font of this size, or a little more."""
STYLE = """
.tree { color-scheme: light dark; font: 12px ui-monospace, Menlo, Consolas, monospace; --ink: #1b1f24; --faint: #6b7280;
  --paper: #ffffff; --right: #15803d; --wrong: #b91c1c; --chosen: #1d4ed8 }
@media (prefers-color-scheme: dark) { .tree { --ink: #e5e7eb; --faint: #9ca3af; --paper: #111418; --right: #4ade80;
  --wrong: #f87171; --chosen: #60a5fa } }
.tree .paper { fill: var(--paper) } .tree text { fill: var(--ink) } .tree .numbers { fill: var(--faint) }
.tree path { fill: none; stroke: var(--faint); stroke-width: 1 } .tree path.chosen { stroke: var(--chosen);
  stroke-width: 2.5 } .tree circle { fill: var(--paper); stroke: var(--faint); stroke-width: 1.5 }
.tree circle.right { fill: var(--right); stroke: var(--right) } .tree circle.wrong { fill: var(--wrong);
  stroke: var(--wrong) } .tree circle.closed { stroke-dasharray: 2 2 } .tree circle.chosen { stroke: var(--chosen);
  stroke-width: 3 } .tree text.chosen { font-weight: bold }
"""
Right = Mapping[int, bool]


def tree_text(
    nodes: Sequence[TreeNode], *, right: Right | None = None, chosen: int | None = None, width: int = 100
) -> str:
    """One line per node, children below their parent, in the order they were made.

    Args:
        nodes: one tree, parents before children.
        right: whether each judged end is right, by node id.
        chosen: node id of the answer that was taken; the way to it is marked by ``*``.
        width: columns, to which the text of steps is cut.
    """
    marked = _route(nodes, chosen)
    lines = []
    for node, lead in _walk(nodes):
        star = "*" if node.node_id in marked else " "
        head = f"{star} {lead}{node.node_id} {_numbers(node, right or {})}"
        lines.append(f"{head}  {_clipped(node.text, width - len(head) - 2)}".rstrip())
    return "\n".join(lines)


def tree_svg(
    nodes: Sequence[TreeNode], *, right: Right | None = None, chosen: int | None = None, characters: int = 60
) -> str:
    """A file of its own: a row per node, so that nothing overlaps however wide or deep the tree is; light or dark as
    the reader has it. Hovering over a node tells its whole text.

    Args:
        right, chosen: as `tree_text`.
        characters: of the text of a step, at most.
    """
    marked, places = _route(nodes, chosen), _places(nodes)
    rows = [_row(node, places, right or {}, node.node_id in marked, characters) for node in nodes]
    longest = max(places[node.node_id][0] + CHARACTER * len(text) for node, (_, text) in zip(nodes, rows, strict=True))
    width, height = round(longest + 2 * LEFT_TEXT + MARGIN), 2 * MARGIN + ROW * len(nodes)
    edges = [_edge(node, places, node.node_id in marked) for node in nodes[1:]]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="tree" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" aria-label="{escape(f"search tree of {nodes[0].problem_id}")}">',
            f"<style>{STYLE}</style>",
            f'<rect class="paper" width="{width}" height="{height}"/>',
            *sorted(edges, key=lambda edge: "chosen" in edge),  # The way to the answer is drawn above the rest.
            *(part for part, _ in rows),
            "</svg>\n",
        ]
    )


def _walk(nodes: Sequence[TreeNode]) -> list[tuple[TreeNode, str]]:
    """Every node below its parent, with the lines that lead to it; as deep as trees are, none of it is recursive."""
    children: defaultdict[int, list[TreeNode]] = defaultdict(list)
    for node in nodes[1:]:
        children[node.parent].append(node)
    found: list[tuple[TreeNode, str]] = []
    waiting = [(nodes[0], "", "")]
    while waiting:
        node, lead, below = waiting.pop()
        found.append((node, lead))
        own = children[node.node_id]
        for place in range(len(own) - 1, -1, -1):
            is_last = place == len(own) - 1
            waiting.append((own[place], below + ("└─ " if is_last else "├─ "), below + ("   " if is_last else "│  ")))
    return found


def _route(nodes: Sequence[TreeNode], chosen: int | None) -> set[int]:
    return set() if chosen is None else set(path(nodes, chosen))


def _kind(node: TreeNode, right: Right) -> str:
    if node.state == "end":
        return {True: "right", False: "wrong", None: "end"}[right.get(node.node_id)]
    return node.state


def _numbers(node: TreeNode, right: Right) -> str:
    said = [
        "V=-" if node.value is None else f"V={node.value:.2f}",
        *([f"Q={node.value_sum / node.visits:.2f}"] if node.visits else []),
        f"N={node.visits}",
        *([f"MC={node.mc:.2f}"] if node.mc is not None else []),
        _kind(node, right) + (f" ({node.reason})" if node.reason else ""),
    ]
    return " ".join(said)


def _clipped(text: str, size: int) -> str:
    """One line of text, of no control characters."""
    line = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return line if len(line) <= size else f"{line[: max(size - 1, 0)]}…" if size > 0 else ""


def _places(nodes: Sequence[TreeNode]) -> dict[int, tuple[float, float]]:
    """Middle of every node's circle: a row each, as in the text, further right the deeper."""
    return {
        node.node_id: (MARGIN + 6 + INDENT * node.depth, MARGIN + ROW * (row + 0.5))
        for row, (node, _) in enumerate(_walk(nodes))
    }


def _row(
    node: TreeNode, places: Mapping[int, tuple[float, float]], right: Right, is_chosen: bool, characters: int
) -> tuple[str, str]:
    """The circle and text of a node, and the text alone."""
    x, y = places[node.node_id]
    numbers, text = f"{node.node_id} {_numbers(node, right)}", _clipped(node.text, characters)
    also = " chosen" if is_chosen else ""
    title = escape("".join(c if c.isprintable() or c == "\n" else " " for c in node.text))
    return (
        f'<circle class="{_kind(node, right)}{also}" cx="{x:g}" cy="{y:g}" r="5"><title>{title}</title></circle>'
        f'<text class="{also.strip()}" x="{x + LEFT_TEXT:g}" y="{y + 4:g}"><tspan class="numbers">{escape(numbers)}'
        f"</tspan> {escape(text)}</text>",
        f"{numbers} {text}",
    )


def _edge(node: TreeNode, places: Mapping[int, tuple[float, float]], is_chosen: bool) -> str:
    """From the parent straight down, then across: no edge runs through a row of another branch's text."""
    (from_x, from_y), (x, y) = places[node.parent], places[node.node_id]
    return f'<path class="{"chosen" if is_chosen else ""}" d="M{from_x:g} {from_y + 5:g}V{y:g}H{x - 5:g}"/>'
