"""What is known of the responses to a work list while they grow: finished, begun, or superfluous.

Stopping early counts right samples by their index, never by when they were finished: a problem is done after its
K-th right sample in order of index, and what was drawn beyond that is dropped, whenever it came. So what is kept is
what drawing all samples would have kept, and fast answers, which are short ones, gain nothing by being fast.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from selftrain.drawing.journal import Journal
from selftrain.sampling.base import Begun, Completion, Place, Request


class Ledger:
    """The `Answers` of one work list.

    Args:
        enough: right samples after which a request is done; None draws all.
        journal: where responses are kept while they grow; None keeps none.
        closed: requests whose samples an earlier process wrote to parts.
    """

    def __init__(
        self,
        work: Sequence[Request],
        *,
        enough: int | None = None,
        journal: Journal | None = None,
        closed: Iterable[int] = (),
    ) -> None:
        self._samples = [len(request.seeds) for request in work]
        self._limits = list(self._samples)
        self._enough = enough
        self._journal = journal
        self._held: defaultdict[int, dict[int, Completion]] = defaultdict(dict)
        self._right: defaultdict[int, dict[str | int, int]] = defaultdict(dict)
        """Of each request, the first right samples by text or, where equal texts count too, by index."""
        self._judged: defaultdict[int, set[int]] = defaultdict(set)
        self._dropped: list[Place] = []
        self._on_disk = frozenset(closed)
        self._closed = set(self._on_disk)
        self._begun = journal.begun if journal else {}
        self.drawn = self.kept = 0
        """Tokens drawn for requests that are not on disk, those of responses nobody needed too; and tokens kept."""
        self.taken = self.spared = 0
        """Samples that were kept, and that were not needed."""
        self._whole = 0.0

    @property
    def by_index(self) -> bool:
        return self._enough is not None

    def wanted(self, request: int, index: int) -> bool:
        return request not in self._closed and index < self._limits[request] and index not in self._held[request]

    def dropped(self) -> Sequence[Place]:
        dropped, self._dropped = self._dropped, []
        return dropped

    def begun(self, request: int, index: int) -> Begun | None:
        return self._begun.pop((request, index), None)

    def grown(self, request: int, index: int, ids: Sequence[int], logprobs: Sequence[float] | None) -> None:
        if self._journal:
            self._journal.grown((request, index), ids, logprobs)

    def lost(self, request: int, index: int, tokens: int) -> None:
        self.drawn += tokens
        if self._journal:
            self._journal.lost((request, index))

    def given_up(self, request: int, index: int, tokens: int) -> None:
        self.drawn += tokens

    def recover(self) -> list[Completion]:
        """Responses that an earlier process finished, of requests that are not closed; once."""
        if self._journal is None:
            return []
        finished, self._journal.finished = self._journal.finished, []
        return self._take_in(finished)

    def finish(self, completions: Sequence[Completion]) -> list[Completion]:
        """Take responses in; those that were wanted."""
        taken = self._take_in(completions)
        if self._journal:
            self._journal.finish(taken)
            self._journal.flush()
        return taken

    def _take_in(self, completions: Sequence[Completion]) -> list[Completion]:
        taken = []
        for completion in completions:
            # What lies in parts is drawn again after a kill where it shares a batch; stopping early did not cost that.
            if completion.request not in self._on_disk:
                self.drawn += len(completion.ids)
            if self.wanted(completion.request, completion.index):
                self._held[completion.request][completion.index] = completion
                taken.append(completion)
        return taken

    def judge(self, request: int, index: int, right: bool, text: str | None = None) -> None:
        """Take a verdict in; later samples may become superfluous by it.

        Args:
            right: whether it counts towards what is enough.
            text: where it is given, right samples of one text count once, as the first of them.
        """
        if self._enough is None or request in self._closed:
            return
        self._judged[request].add(index)
        if right:
            known, key = self._right[request], index if text is None else text
            known[key] = min(index, known.get(key, index))
            if len(known) >= self._enough:
                # Those behind can only become first by an index yet to come, which is told then.
                first = sorted(known, key=known.__getitem__)[: self._enough]
                self._right[request] = {key: known[key] for key in first}
                self._limit(request, known[first[-1]] + 1)

    def _limit(self, request: int, limit: int) -> None:
        superfluous = [(request, index) for index in range(limit, self._limits[request])]
        self._dropped += superfluous
        self._limits[request] = min(limit, self._limits[request])
        for place in superfluous:
            if begun := self._begun.pop(place, None):
                self.drawn += len(begun.ids)

    def complete(self, request: int) -> bool:
        """Whether all its samples are here and, where verdicts can make some superfluous, judged."""
        indices = range(self._limits[request])
        judged = self._judged[request]
        return all(i in self._held[request] for i in indices) and (
            self._enough is None or all(i in judged for i in indices)
        )

    def take(self, request: int) -> list[Completion]:
        """The samples of a complete request in order of index; it is closed by that."""
        held = self._held.pop(request, {})
        kept = [held[index] for index in range(self._limits[request])]
        tokens = sum(len(completion.ids) for completion in kept)
        self.kept += tokens
        self.taken += len(kept)
        self.spared += self._samples[request] - len(kept)
        self._whole += tokens / len(kept) * self._samples[request]
        self._closed.add(request)
        for known in (self._right, self._judged):
            known.pop(request, None)
        return kept

    def written(self, requests: Iterable[int]) -> None:
        """Requests that were taken lie in a part now: the journal need not hold them any more."""
        if self._journal:
            self._journal.forget(requests)

    @property
    def saved(self) -> int:
        """Tokens that drawing all samples would have taken beyond those that were drawn, about: what was not drawn of a
        request is reckoned to be as long as what was kept of it."""
        return round(self._whole - self.drawn)
