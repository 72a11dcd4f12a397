"""The tree of one problem as text and as a picture."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

from selftrain.report.trees import ROW, tree_svg, tree_text
from selftrain.types import TreeNode

SMALL = [
    TreeNode("t", "p<1>", 0, -1, 0, (), "", visits=4, value_sum=2.0),
    TreeNode("t", "p<1>", 1, 0, 1, (1,), "2+2=4\n", value=0.5, visits=3, value_sum=2.1, mc=0.25),
    TreeNode("t", "p<1>", 2, 0, 1, (2,), "2+2 < 5 & so on", value=0.1, visits=1, state="closed", reason="repeats"),
    TreeNode("t", "p<1>", 3, 1, 2, (3,), "4+3=8", value=0.2, visits=1, value_sum=0.2, state="end"),
    TreeNode("t", "p<1>", 4, 1, 2, (4,), "4+3=7", value=0.9, visits=1, value_sum=0.9, state="end"),
]
RIGHT = {3: False, 4: True}


def test_the_tree_as_text() -> None:
    assert tree_text(SMALL, right=RIGHT, chosen=4).splitlines() == [
        "* 0 V=- Q=0.50 N=4 open",
        "* ├─ 1 V=0.50 Q=0.70 N=3 MC=0.25 open  2+2=4",
        "  │  ├─ 3 V=0.20 Q=0.20 N=1 wrong  4+3=8",
        "* │  └─ 4 V=0.90 Q=0.90 N=1 right  4+3=7",
        "  └─ 2 V=0.10 Q=0.00 N=1 closed (repeats)  2+2 < 5 & so on",
    ]
    assert "3 V=0.20 Q=0.20 N=1 end" in tree_text(SMALL)  # Not judged; nothing chosen.
    assert "*" not in tree_text(SMALL)


def test_text_is_cut_to_the_columns_there_are() -> None:
    long = [SMALL[0], TreeNode("t", "p", 1, 0, 1, (1,), "x" * 500 + "\x1b[31m")]
    lines = tree_text(long, width=60).splitlines()
    assert [len(line) for line in lines] == [23, 60] and lines[1].endswith("x…")
    assert "\x1b" not in tree_text([long[0], TreeNode("t", "p", 1, 0, 1, (1,), "\x1b[31m")])
    assert tree_text(long, width=5).splitlines()[1] == "  └─ 1 V=- N=0 open"


def test_a_deep_chain_is_drawn() -> None:
    chain = [TreeNode("t", "p", i, i - 1, i, (i,), "s") for i in range(3000)]
    assert len(tree_text(chain).splitlines()) == 3000


def test_the_picture_is_whole_and_says_what_the_text_says() -> None:
    root = ElementTree.fromstring(tree_svg(SMALL, right=RIGHT, chosen=4))
    texts = ["".join(one.itertext()) for one in root.iter() if one.tag.endswith("}text")]
    assert texts[4] == "4 V=0.90 Q=0.90 N=1 right 4+3=7" and "2+2 < 5 & so on" in texts[2]
    circles = [one.get("class") for one in root.iter() if one.tag.endswith("circle")]
    assert circles == ["open chosen", "open chosen", "closed", "wrong", "right chosen"]
    edges = [one.get("class") for one in root.iter() if one.tag.endswith("path")]
    assert edges == ["", "", "chosen", "chosen"]
    assert "prefers-color-scheme: dark" in tree_svg(SMALL) and root.get("aria-label") == "search tree of p<1>"


def test_a_hundred_nodes_do_not_overlap() -> None:
    """Each has a row to itself, within the picture; an edge comes down left of every text that it passes."""
    rng = random.Random(0)
    nodes = [SMALL[0]]
    for i in range(1, 100):
        parent = rng.choice(nodes)
        nodes.append(TreeNode("t", "p", i, parent.node_id, parent.depth + 1, (i,), "step " * rng.randint(1, 40)))
    root = ElementTree.fromstring(tree_svg(nodes))
    width, height = float(root.get("width") or 0), float(root.get("height") or 0)
    circles = [(float(c.get("cx") or 0), float(c.get("cy") or 0)) for c in root.iter() if c.tag.endswith("circle")]
    rows = sorted(y for _, y in circles)
    assert len(rows) == 100 and all(b - a == ROW for a, b in pairwise(rows))
    assert rows[0] > ROW / 2 and rows[-1] < height - ROW / 2
    longest = max(len("".join(t.itertext())) for t in root.iter() if t.tag.endswith("}text"))
    assert max(x for x, _ in circles) < width and 7.3 * longest < width
    texts = {y: x + 12 for x, y in circles}
    for edge in (e.get("d") or "" for e in root.iter() if e.tag.endswith("path")):
        x, top, bottom = (float(one) for one in re.findall(r"M(\S+) (\S+)V(\S+?)H", edge)[0])
        assert all(start > x for y, start in texts.items() if top < y < bottom)
