"""Mathematical answers, read by a closed grammar and compared.

Text goes to `tokens`, through `parser` (one formula) and `reader` (an answer: values, lists, sets, intervals,
relations, words) to the objects of `nodes` and `forms`; `compare` decides, by exact numbers (`exact`), else by values
at fixed points (`same`, `values`), under a `policy`. Nothing is evaluated that was not bounded before, and no text is
ever run.
"""
