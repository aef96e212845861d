"""What the user's decisions say about a tagger: how often it is right, which threshold each tag should have; and
which pictures to look at first.

Only what was decided counts. A tag that nobody looked at is neither right nor wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from engine.dataset.records import Event, Policy
from engine.dataset.view import View
from engine.dataset.view_judged import Verdict

SUPPORT = 5  # decisions on a tag below which no threshold is proposed for it


@dataclass(frozen=True)
class Score:
    """Counts of one tag, or of all: proposed and accepted, proposed and rejected, missed (added by the user)."""

    name: str
    accepted: int
    rejected: int
    missed: int

    @property
    def precision(self) -> float:
        return self.accepted / max(1, self.accepted + self.rejected)

    @property
    def recall(self) -> float:
        return self.accepted / max(1, self.accepted + self.missed)

    @property
    def f1(self) -> float:
        return 2 * self.accepted / max(1, 2 * self.accepted + self.rejected + self.missed)

    @property
    def miss_rate(self) -> float:
        return 1.0 - self.recall if self.accepted + self.missed else 0.0


@dataclass(frozen=True)
class Suggestion:
    """A threshold for one tag that fits the decisions better, with the F1 now and then."""

    name: str
    now: float
    proposed: float
    f1_now: float
    f1_then: float
    support: int


def metrics(view: View, source: int) -> tuple[Score, list[Score]]:
    """Of all tags together (micro), and by tag, those with most decisions first."""
    by_tag: dict[str, list[Verdict]] = defaultdict(list)
    verdicts = view.verdicts(source)
    for verdict in verdicts:
        by_tag[verdict.name].append(verdict)
    rows = sorted(by_tag.items(), key=lambda item: (-len(item[1]), item[0]))
    return _score("", verdicts), [_score(name, found) for name, found in rows]


def suggestions(view: View, source: int, support: int = SUPPORT) -> list[Suggestion]:
    """Better thresholds by tag from accepts and rejects, most gain first. Nothing is applied.

    A threshold is put in the middle between two scores that were decided; between equally good ones the nearest to the
    present is chosen.
    """
    policy = next(s.policy for s in view.sources() if s.id == source)
    by_tag: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in view.verdicts(source):
        by_tag[verdict.name].append(verdict)
    found = [_suggestion(name, policy, verdicts) for name, verdicts in by_tag.items() if len(verdicts) >= support]
    return sorted((s for s in found if s.f1_then > s.f1_now), key=lambda s: (s.f1_now - s.f1_then, s.name))


def accept_suggestions(view: View, source: int, chosen: Iterable[Suggestion]) -> Event | None:
    """Make them the thresholds of their tags, as one edit."""
    policy = next(s.policy for s in view.sources() if s.id == source)
    moved = {suggestion.name: suggestion.proposed for suggestion in chosen}
    changed = replace(policy, per_tag={**policy.per_tag, **moved})
    return view.store.set_policy(source, changed, f"⇕ {len(moved)}")


def agreement(view: View) -> dict[tuple[int, int], float]:
    """Jaccard index of the tags of every two taggers, over the pictures that both read."""
    kept = view.proposals()
    result: dict[tuple[int, int], float] = {}
    for a in sorted(kept):
        for b in sorted(kept):
            if a < b:
                both = kept[a].keys() & kept[b].keys()
                common = sum(len(kept[a][p] & kept[b][p]) for p in both)
                either = sum(len(kept[a][p] | kept[b][p]) for p in both)
                result[a, b] = common / either if either else 1.0
    return result


def queue(view: View) -> list[int]:
    """Picture ids as worth reviewing: undecided before decided, where taggers disagree most, then least sure first."""
    ids = [picture.id for picture in view.pictures()]
    order = np.lexsort((np.arange(len(ids)), view.margin(), -view.disagreement(), view.decided() > 0))
    return [ids[i] for i in order]


def _score(name: str, verdicts: list[Verdict]) -> Score:
    accepted = sum(v.proposed and v.right for v in verdicts)
    rejected = sum(v.proposed and not v.right for v in verdicts)
    missed = sum(v.right and not v.proposed for v in verdicts)
    return Score(name, accepted, rejected, missed)


def _suggestion(name: str, policy: Policy, verdicts: list[Verdict]) -> Suggestion:
    now = policy.per_tag.get(name, policy.thresholds.get(verdicts[0].category, 0.0))
    scores = sorted({v.score for v in verdicts})
    middles = [(a + b) / 2 for a, b in pairwise(scores)]
    candidates = [now, *middles, scores[0] / 2, (scores[-1] + 1) / 2]
    best = max(candidates, key=lambda cut: (_f1(verdicts, cut), -abs(cut - now)))
    return Suggestion(name, now, round(best, 4), _f1(verdicts, now), _f1(verdicts, round(best, 4)), len(verdicts))


def _f1(verdicts: list[Verdict], cut: float) -> float:
    moved = [replace(v, proposed=v.score > cut) for v in verdicts]
    return _score("", moved).f1
