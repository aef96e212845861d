"""What taggers and the user make of each other, as a dataset counts now: verdicts, proposals, doubt, disagreement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.dataset.arrays import TAGGER, limits
from engine.dataset.records import RATING
from engine.dataset.view_state import State


@dataclass(frozen=True)
class Verdict:
    """The user's word on one tag of one picture, beside the score of a source (0 where it stored none)."""

    picture: int
    name: str
    category: str
    score: float
    proposed: bool
    right: bool


class Judged(State):
    """Answers for reviewing."""

    def verdicts(self, source: int) -> list[Verdict]:
        """What the user decided, beside what one source read, in the pictures that this source read."""
        with self._fresh():
            policy = self._sources[source].policy
            found: list[Verdict] = []
            for picture, states in self._decided.items():
                values = self._raw.get((picture, source))
                if values is None or picture not in self._place:
                    continue
                terms, scores, cuts = values
                read = dict(zip(terms.tolist(), scores.tolist(), strict=True))
                for term, state in states.items():
                    if state:
                        score = read.get(term, 0.0)
                        proposed = score > self._words.cut(policy, term, cuts)
                        found.append(
                            Verdict(
                                picture,
                                self._words.names[term],
                                self._words.categories[term],
                                score,
                                proposed,
                                state > 0,
                            )
                        )
            return found

    def proposals(self) -> dict[int, dict[int, set[int]]]:
        """{tagger's source: {picture: terms over their thresholds}}, ratings left out."""
        with self._fresh():
            taggers = {s.id for s in self._sources.values() if s.tool.startswith(TAGGER) and s.policy.enabled}
            found: dict[int, dict[int, set[int]]] = {source: {} for source in taggers}
            for picture, source in self._raw:
                if source in taggers and picture in self._place:
                    found[source][picture] = set()
            kept = self._kept()
            for place, term, source in zip(
                kept.picture.tolist(), kept.term.tolist(), kept.source.tolist(), strict=True
            ):
                if source in taggers and self._words.categories[term] != RATING:
                    found[source][self._pictures[place].id].add(term)
            return found

    def margin(self) -> np.ndarray:
        """How far the score nearest to its threshold is from it, by place; infinite where no tagger read."""
        with self._fresh():
            found = np.full(len(self._pictures), np.inf)
            all = self._entries
            for source in self._sources.values():
                if not source.tool.startswith(TAGGER) or not source.policy.enabled:
                    continue
                mine = all.source == source.id
                table = limits(self._words, source.policy)
                table[np.array(self._words.categories) == RATING] = np.inf
                np.minimum.at(found, all.picture[mine], np.abs(all.score[mine] - table[all.term[mine]]))
            return found

    def disagreement(self) -> np.ndarray:
        """Share of the tags some tagger admits that not all taggers admit, by place; 0 with fewer than two."""
        with self._fresh():
            if self._disputed is not None:
                return self._disputed
            taggers = {s.id for s in self._sources.values() if s.tool.startswith(TAGGER) and s.policy.enabled}
            readers = np.zeros(len(self._pictures), int)
            for picture, source in self._raw:
                if source in taggers and picture in self._place:
                    readers[self._place[picture]] += 1
            kept = self._kept()
            mine = np.isin(kept.source, list(taggers)) & (np.array(self._words.categories)[kept.term] != RATING)
            pair, votes = np.unique(kept.picture[mine] * len(self._words.names) + kept.term[mine], return_counts=True)
            place = pair // max(1, len(self._words.names))
            total = np.bincount(place, minlength=len(self._pictures))
            split = np.bincount(place[votes < readers[place]], minlength=len(self._pictures))
            self._disputed = np.where(readers > 1, split / np.maximum(total, 1), 0.0)
            return self._disputed
