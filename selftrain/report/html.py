"""The report of a run as one static HTML file: no script, nothing loaded from elsewhere, light and dark.

What comes from models, data or configs is escaped, and a content policy forbids the browser to run or fetch anything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from selftrain.files import replacing
from selftrain.report.best_of import best_of_legend, best_of_series, best_of_tables, best_of_tests
from selftrain.report.chart import COLOURS, Series, line_chart
from selftrain.report.chart import STYLE as CHART
from selftrain.report.forgetting import LEGEND, OVERVIEW, TITLE, advice, forgetting_table, overview_table
from selftrain.report.monitors import monitor_legend, monitor_series, monitor_tables
from selftrain.report.protocols import MEANING, protocol_tables
from selftrain.report.searches import MEANING as SEARCHES
from selftrain.report.searches import search_table, search_tests
from selftrain.report.tables import Row, by_split, change, columns_of, metric_name, percent
from selftrain.types import STATUSES

STYLE = """
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1rem 4rem; color: var(--text); background: var(--page);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 1rem; font-size: 1.7rem; } h2 { margin: 2.5rem 0 .5rem; font-size: 1.2rem; }
h3 { margin: 1.5rem 0 .5rem; font-size: 1rem; } p, dd, li { max-width: 46rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .5rem; font-size: .88rem; text-align: right; white-space: nowrap; }
th, td { border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; } dl.legend, .note { color: var(--soft); font-size: .85rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .7rem 0; } dd { margin: 0; }
pre { margin: 0; padding: .6rem; max-height: 24rem; overflow: auto; background: var(--panel); border-radius: 6px;
  white-space: pre-wrap; overflow-wrap: anywhere; font: .85rem/1.45 ui-monospace, monospace; }
article { border-top: 1px solid var(--line); } .right { color: var(--good); } .wrong, .error { color: var(--bad); }
"""


def write_report(
    path: Path,
    *,
    title: str,
    rows: Sequence[Row],
    selection: Mapping[int, Mapping[str, int]],
    config_text: str,
    samples: Sequence[Mapping[str, Any]],
    acceptance: Mapping[int, float] | None = None,
    watched: Collection[str] = (),
    told: Mapping[str, Sequence[str]] | None = None,
    monitors: Sequence[Row] = (),
) -> None:
    """Write the report to ``path``, whole or not at all.

    Args:
        rows: rows of ``metrics.jsonl``, with ``vs_start`` and ``vs_previous`` where they were tested.
        selection: for each iteration the number of samples by fate: ``kept``, or the reason they were dropped.
        config_text: the resolved config.
        samples: example rows, any named values; ``iteration``, ``problem_id`` and ``status`` go into the heading.
        acceptance: share of samples judged right in each iteration.
        watched: tasks that are evaluated only.
        told: further lines of text, by title.
        monitors: what was measured, by iteration.
    """
    content = page(title, rows, selection, config_text, samples, acceptance or {}, watched, told or {}, monitors)
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8", errors="replace")


def page(
    title: str,
    rows: Sequence[Row],
    selection: Mapping[int, Mapping[str, int]],
    config_text: str,
    samples: Sequence[Mapping[str, Any]],
    acceptance: Mapping[int, float],
    watched: Collection[str] = (),
    told: Mapping[str, Sequence[str]] | None = None,
    monitors: Sequence[Row] = (),
) -> str:
    """The whole document as text."""
    name = escape(title)
    sections = [f"<h1>{name}</h1>"]
    if overview := overview_table(rows, watched):
        sections.append(f"<h2>{OVERVIEW}</h2>{_table(overview[0], overview[1:])}")
    sections += _forgetting(rows, watched)
    sections += [_results(key, group) for key, group in by_split(rows).items()]
    sections += [_protocol(title, table) for title, table in protocol_tables(rows)]
    if not rows:
        sections.append("<p>No iteration has been evaluated yet.</p>")
    sections.append(_selection(selection, acceptance))
    sections += _monitors(monitors)
    for heading, lines in (told or {}).items():
        sections.append(f"<h2>{escape(heading)}</h2><pre>{escape(chr(10).join(lines))}</pre>")
    if samples:
        sections.append("<h2>Examples</h2>" + "".join(map(_sample, samples)))
    sections.append(
        f"<h2>Config</h2><details><summary>Every setting</summary><pre>{escape(config_text)}</pre></details>"
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{COLOURS}{STYLE}{CHART}</style>\n</head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


def _results(key: tuple[str, str], group: Sequence[Row]) -> str:
    """Headline, chart, table and difficulties of one task and split."""
    name = "/".join(key)
    metrics = [metric for metric in ("pass@1", metric_name(group, "avg")) if any(metric in row for row in group)]
    series = [Series(metric, _points(group, metric)) for metric in metrics]
    columns = [column for column in columns_of(group) if any(column.cell(row) for row in group)]
    body = [[column.cell(row) or "-" for column in columns] for row in group]
    legend = "".join(f"<dt>{escape(column.name)}</dt><dd>{escape(column.meaning)}</dd>" for column in columns)
    return (
        f"<h2>{escape(name)}</h2>"
        + "".join(f"<p>{escape(_headline(group, metric))}</p>" for metric in metrics[:1])
        + (line_chart(series, f"{' and '.join(metrics)} on {name} by iteration") if series else "")
        + _table([column.name for column in columns], body)
        + f'<dl class="legend">{legend}</dl>'
        + _difficulties(group)
        + _best_of(group[-1], name)
        + _searches(group[-1])
    )


def _searches(row: Row) -> str:
    """What answering by searches came to in the last iteration, and took."""
    table = search_table(row)
    if not table:
        return ""
    legend = "".join(f"<dt>{escape(what)}</dt><dd>{escape(text)}</dd>" for what, text in SEARCHES.items())
    told = "".join(f"<p>{escape(line)}</p>" for line in search_tests(row))
    heading = f"<h3>Searches, iteration {row['iteration']}</h3>"
    return f'{heading}{_table(table[0], table[1:])}{told}<dl class="legend">{legend}</dl>'


def _best_of(row: Row, name: str) -> str:
    """Curves over n of the last iteration, where a reward chose among its samples."""
    table = best_of_tables(row)
    if not table:
        return ""
    charts = "".join(
        f"<p>By {escape(source)}</p>{line_chart(series, f'best of n by {source} on {name}', 'n', doubling=True)}"
        for source, series in best_of_series(row).items()
    )
    legend = "".join(f"<dt>{escape(what)}</dt><dd>{escape(text)}</dd>" for what, text in best_of_legend(row))
    tests = "".join(f"<p>{escape(line)}</p>" for line in best_of_tests(row))
    heading = f"<h3>Best of n, iteration {row['iteration']}</h3>"
    return f'{heading}{charts}{_table(table[0], table[1:])}{tests}<dl class="legend">{legend}</dl>'


def _points(group: Sequence[Row], metric: str) -> tuple[tuple[int, float, float, float], ...]:
    present = [row for row in group if metric in row]
    bounds = (f"{metric}_low", f"{metric}_high")
    return tuple((row["iteration"], row[metric], *(row.get(bound, row[metric]) for bound in bounds)) for row in present)


def _headline(group: Sequence[Row], metric: str) -> str:
    present = [row for row in group if metric in row]
    first, last = present[0], present[-1]
    count = f"on {last['n_problems']:,} problems"
    if first is last:
        return f"{metric} is {percent(first, metric)} % {count} at iteration {first['iteration']}."
    test = change(last, "vs_start", metric)
    went = f"from {percent(first, metric)} % at iteration {first['iteration']} to {percent(last, metric)} %"
    return f"{metric} went {went} at iteration {last['iteration']} {count}{f' ({test})' if test else ''}."


def _difficulties(group: Sequence[Row]) -> str:
    first, last = group[0].get("by_difficulty") or {}, group[-1].get("by_difficulty") or {}
    metrics = [name for name in next(iter(last.values()), {}) if name != "n"]
    if not metrics:
        return ""
    ends = [(group[0]["iteration"], first)] if len(group) > 1 else []
    ends.append((group[-1]["iteration"], last))
    header = ["difficulty", "problems", *(f"{metric} %, iteration {at}" for metric in metrics for at, _ in ends)]
    body = [
        [
            level,
            f"{cell['n']:,}",
            *(percent(table.get(level, {}), metric) or "-" for metric in metrics for _, table in ends),
        ]
        for level, cell in last.items()
    ]
    return "<h3>By difficulty</h3>" + _table(header, body)


def _protocol(title: str, table: Sequence[Sequence[str]]) -> str:
    return f'<h2>{escape(title)}</h2><p class="note">{escape(MEANING)}</p>{_table(table[0], table[1:])}'


def _forgetting(rows: Sequence[Row], watched: Collection[str]) -> list[str]:
    table, told = forgetting_table(rows, watched), advice(rows, watched)
    if not table:
        return []
    warning = f'<p class="wrong">{escape(told)}</p>' if told else ""
    return [f'<h2>{TITLE}</h2><p class="note">{escape(" ".join(LEGEND))}</p>{_table(table[0], table[1:])}{warning}']


def _selection(selection: Mapping[int, Mapping[str, int]], acceptance: Mapping[int, float]) -> str:
    if not selection and not acceptance:
        return ""
    reasons = list(dict.fromkeys(name for counts in selection.values() for name in counts if name != "kept"))
    accepted = ["right %"] if acceptance else []
    header = ["iteration", "samples", *accepted, "kept", "kept %", *(f"dropped: {reason}" for reason in reasons)]
    body = []
    for iteration in sorted({*selection, *acceptance}):
        counts = selection.get(iteration, {})
        total, kept = sum(counts.values()), counts.get("kept", 0)
        right = [percent({"right": acceptance.get(iteration)}, "right") or "-"] if acceptance else []
        share = f"{100 * kept / total:.1f}" if total else "-"
        dropped = [f"{counts.get(reason, 0):,}" for reason in reasons]
        body.append([str(iteration), f"{total:,}", *right, f"{kept:,}", share, *dropped])
    note = '<p class="note">What Grow sampled, how much of it was trained on, and why the rest was not.</p>'
    return f"<h2>Selection</h2>{note}{_table(header, body)}"


def _monitors(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    charts, parts = monitor_series(rows), ["<h2>Monitors</h2>"]
    for title, table in monitor_tables(rows).items():
        chart = line_chart(charts[title], f"{title} by iteration") if title in charts else ""
        parts.append(f"<h3>{escape(title)}</h3>{chart}{_table(table[0], table[1:])}")
    legend = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in monitor_legend(rows))
    return [*parts, f'<dl class="legend">{legend}</dl>']


def _sample(sample: Mapping[str, Any]) -> str:
    status = str(sample.get("status", ""))
    css = f' class="{status}"' if status in STATUSES else ""
    parts = [f"iteration {sample['iteration']}"] if "iteration" in sample else []
    parts += [str(sample["problem_id"])] if "problem_id" in sample else []
    head = escape(", ".join(parts) or "sample") + (f" <span{css}>{escape(status)}</span>" if status else "")
    others = {key: value for key, value in sample.items() if key not in ("iteration", "problem_id", "status")}
    shown = "".join(
        f"<dt>{escape(str(key))}</dt><dd><pre>{escape(str(value))}</pre></dd>"
        for key, value in others.items()
        if value is not None
    )
    return f"<article><h3>{head}</h3><dl>{shown}</dl></article>"


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in body)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
