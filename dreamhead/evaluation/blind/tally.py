"""Count votes: shares of preference with their confidence, and whether chance would do as well."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from dreamhead.evaluation.blind.ballot import Preferred, Vote

Z = 1.959963985
"""Of the normal distribution: 95 % lie within this many standard deviations."""


@dataclass(frozen=True)
class Tally:
    """Preferences for `a` and `b`; ties count apart, and in no share."""

    a: int
    b: int
    equal: int

    @classmethod
    def of(cls, preferred: Iterable[Preferred]) -> "Tally":
        """Count them."""
        counts = Counter(preferred)
        return cls(counts["a"], counts["b"], counts["equal"])

    @property
    def share(self) -> float:
        """Of those that preferred one: how many preferred `a`; NaN where nobody did."""
        decided = self.a + self.b
        return self.a / decided if decided else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of that share (Wilson 1927); 0 to 1 where nobody preferred one."""
        return wilson(self.a, self.a + self.b)

    @property
    def p_value(self) -> float:
        """Of the two-sided sign test: how often chance alone would be at least as lopsided."""
        return sign_test(self.a, self.b)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % score interval of the share `hits` of `count`; 0 to 1 where there is nothing to go by."""
    if not count:
        return 0.0, 1.0
    share, spread = hits / count, Z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    reach = Z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def sign_test(first: int, second: int) -> float:
    """Two-sided p value of so many against so many, each being as likely; exact (binomial)."""
    count, most = first + second, max(first, second)
    tail: int = sum(math.comb(count, hits) for hits in range(most, count + 1))
    return float(min(Fraction(1), Fraction(2 * tail, 2**count)))


def by_clip(votes: Sequence[Vote]) -> Tally:
    """One voice a clip, that of the majority of its judges: votes of several on one clip don't stand for themselves."""
    found: dict[str, Counter[Preferred]] = {}
    for vote in votes:
        found.setdefault(vote.clip, Counter())[vote.preferred] += 1
    return Tally.of(_majority(counts) for counts in found.values())


def by_judge(votes: Sequence[Vote]) -> dict[str, Tally]:
    """Each judge's own."""
    judges = sorted({vote.judge for vote in votes})
    return {judge: Tally.of(vote.preferred for vote in votes if vote.judge == judge) for judge in judges}


def _majority(counts: Counter[Preferred]) -> Preferred:
    if counts["a"] == counts["b"]:
        return "equal"
    return "a" if counts["a"] > counts["b"] else "b"
