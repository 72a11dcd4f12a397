"""Responses on disk while they grow, so that a killed process loses none that is finished and goes on with the rest.

One JSON object a line: further tokens of a response, or a finished one. A line that a kill tore is left out. What lies
in a part by now is skipped when the file is read, and left out when it is rewritten.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from selftrain.files import replacing
from selftrain.sampling.base import Begun, Completion, Place

SLACK = 1 << 24
"""Bytes of rows nobody needs any more that a file may hold in any case."""
OPENED: dict[str, Any] = {"opened": True}
"""The row a process begins with."""
PLACE = re.compile(rb'\{"(?:at":\[|request":)(\d+),(?:"index":)?(\d+)')
"""How every other row begins."""


class Journal:
    """The journal of one work list; the file grows as it is written to.

    Args:
        closed: requests whose samples lie in parts.
        slack: as `SLACK`.
    """

    def __init__(self, path: Path, closed: Container[int] = (), slack: int = SLACK) -> None:
        self.finished: list[Completion] = []
        """Of earlier processes."""
        self.begun: dict[Place, Begun] = {}
        """Of earlier processes."""
        self._path, self._slack = path, slack
        self._grown: defaultdict[int, dict[int, int]] = defaultdict(dict)
        self._done: defaultdict[int, dict[int, int]] = defaultdict(dict)
        """Bytes of the rows that are still needed, by request and index."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._size = self._read(closed) if path.exists() else 0
        self._file = path.open("ab")
        self._file.truncate(self._size)
        self._drop_dead_rows()
        self._write(OPENED)

    def grown(self, place: Place, ids: Sequence[int], logprobs: Sequence[float] | None) -> None:
        row = {"at": place, "ids": list(ids), **({} if logprobs is None else {"logprobs": list(logprobs)})}
        self._count(place, self._write(row), finished=False)

    def lost(self, place: Place) -> None:
        """What grew of it since this process began no longer counts: it is drawn once more from there."""
        self._count(place, self._write({"at": place, "ids": [], "anew": True}), finished=False)

    def finish(self, completions: Sequence[Completion]) -> None:
        for completion in completions:
            self._count((completion.request, completion.index), self._write(_row(completion)), True)

    def forget(self, requests: Iterable[int]) -> None:
        """Their samples lie in a part now; where the file holds little else any more, it is rewritten without them."""
        for request in requests:
            self._grown.pop(request, None)
            self._done.pop(request, None)
        self._drop_dead_rows()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _write(self, row: dict[str, Any]) -> int:
        line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
        self._size += len(line)
        return self._file.write(line)

    def _count(self, place: Place, size: int, finished: bool) -> None:
        request, index = place
        before = self._grown[request].pop(index, 0)  # Once a response is finished nobody reads how it grew.
        if finished:
            self._done[request][index] = size
        else:
            self._grown[request][index] = before + size

    def _drop_dead_rows(self) -> None:
        """Rewrite the file where that at least halves it: all in all no more is written than twice what came."""
        needed = sum(sum(sizes.values()) for rows in (self._grown, self._done) for sizes in rows.values())
        if self._size - needed <= max(needed, self._slack):
            return
        self.flush()
        with replacing(self._path) as aside, aside.open("wb") as file:
            for line, _ in _lines(self._path):
                if self._needed(line):
                    file.write(line)
        self._file.close()
        self._file = self._path.open("ab")
        self._size = self._path.stat().st_size

    def _needed(self, line: bytes) -> bool:
        place = _place(line)
        rows = self._grown if line.startswith(b'{"at"') else self._done
        return place is None or place[1] in rows.get(place[0], {})

    def _read(self, closed: Container[int]) -> int:
        """Take in what is there of other requests than the closed ones; bytes of the file that are whole lines."""
        whole, opened, earlier = 0, dict[Place, Begun](), dict[Place, int]()
        for line, end in _lines(self._path):
            place, whole = _place(line), end
            if place is None:
                opened = dict(self.begun)
                earlier = {place: len(begun.ids) for place, begun in opened.items()}
            elif place[0] not in closed:
                row = json.loads(line)
                self._count(place, len(line), finished := "finish_reason" in row)
                if finished:
                    fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}
                    self.finished.append(Completion(**fields))
                    self.begun.pop(place, None)
                elif "anew" in row:
                    self._rewind(place, opened.get(place), earlier)
                else:
                    self._extend(place, row["ids"], row.get("logprobs"), earlier.pop(place, None))
        return whole

    def _rewind(self, place: Place, opened: Begun | None, earlier: dict[Place, int]) -> None:
        """A response is again as it was when its process began."""
        self.begun.pop(place, None)
        if opened is not None:
            self.begun[place], earlier[place] = opened, len(opened.ids)

    def _extend(self, place: Place, ids: list[int], logprobs: list[float] | None, resumed: int | None) -> None:
        before = self.begun.get(place, Begun(()))
        known = None if logprobs is None else (*(before.logprobs or ()), *logprobs)
        segments = before.segments if resumed is None else (*before.segments, resumed)
        self.begun[place] = Begun((*before.ids, *ids), known, segments)


def _row(completion: Completion) -> dict[str, Any]:
    """Its fields as they are: ``asdict`` would copy every token."""
    return {field.name: getattr(completion, field.name) for field in dataclasses.fields(completion)}


def _place(line: bytes) -> Place | None:
    """Of a row; None for the one a process begins with."""
    found = PLACE.match(line)
    return None if found is None else (int(found[1]), int(found[2]))


def _lines(path: Path) -> Iterator[tuple[bytes, int]]:
    """Whole lines, and where each ends."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            yield line, end
