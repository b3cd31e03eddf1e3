"""What is compared, in which order and on which side a judge sees it, and the votes that are given."""

import dataclasses
import json
import os
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from typing_extensions import Self

from dreamhead import storage
from dreamhead.errors import InputError

Which = Literal["a", "b"]
Side = Literal["left", "right"]
Choice = Literal["left", "right", "equal"]
Preferred = Literal["a", "b", "equal"]

COMPARISON, VOTES = "comparison.json", "votes.jsonl"


@dataclass(frozen=True)
class Dubs:
    """Two dubs of one clip, as files on this machine."""

    clip: str
    a: Path
    b: Path

    def file(self, which: Which) -> Path:
        """One of the two."""
        return self.a if which == "a" else self.b


@dataclass(frozen=True)
class Shown:
    """One pair as a judge sees it."""

    clip: str
    left: Which

    def on(self, side: Side) -> Which:
        """Which dub stands there."""
        other: Which = "b" if self.left == "a" else "a"
        return self.left if side == "left" else other

    def preferred(self, choice: Choice) -> Preferred:
        """What a choice of side means."""
        return "equal" if choice == "equal" else self.on(choice)


@dataclass(frozen=True)
class Vote:
    """What a judge said of a clip's two dubs; a later vote of the same judge on the same clip replaces it."""

    judge: str
    clip: str
    preferred: Preferred
    left: Which
    """Which dub stood on the left."""
    seconds: float
    """From the pair's appearance to the vote."""

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Read a line of the votes' file."""
        return cls(**json.loads(line))


def order_for(judge: str, clips: Sequence[str], seed: int) -> list[Shown]:
    """All clips in this judge's own order; each dub is on the left in half of them, give or take one.

    The same judge, clips and seed give the same order, so that an interrupted judgement goes on where it was.
    """
    chance = random.Random(f"{seed}\n{judge}")
    order = sorted(clips)
    chance.shuffle(order)
    lefts: list[Which] = ["a", "b"] * ((len(order) + 1) // 2)
    # An odd one out is either's with equal chance: pairs of sides are turned before the surplus is cut off.
    if chance.random() < 0.5:
        lefts.reverse()
    lefts = lefts[: len(order)]
    chance.shuffle(lefts)
    return [Shown(clip, left) for clip, left in zip(order, lefts, strict=True)]


class VoteBook:
    """The votes on one comparison, in a folder: what was compared, and a line of JSON a vote.

    Nothing is kept in memory: whoever comes back, or judges at the same time, finds every vote.
    """

    def __init__(self, folder: Path, a: str, b: str, dubs: Sequence[Dubs]) -> None:
        """Begin, or go on with, the comparison of `a` and `b`, as they were given.

        Raises InputError where the folder holds votes on other videos.
        """
        self._path = folder / VOTES
        self._lock = threading.Lock()
        digests = {
            one.clip: [storage.content_digest(str(file)) for file in (one.a, one.b)]
            for one in sorted(dubs, key=lambda one: one.clip)
        }
        described = folder / COMPARISON
        folder.mkdir(parents=True, exist_ok=True)
        if described.is_file():
            known = json.loads(described.read_text(encoding="utf-8"))
            if known["clips"] != digests:
                raise InputError(
                    f"{folder}: holds votes on other videos, those of {known['a']} and {known['b']}; "
                    "give another --output, or those two again"
                )
            return
        values = {"a": a, "b": b, "clips": digests}
        storage.write_bytes(str(described), (json.dumps(values, indent=1, ensure_ascii=True) + "\n").encode())

    def votes(self) -> list[Vote]:
        """The vote that counts of each judge on each clip, in the order of the first ones."""
        found: dict[tuple[str, str], Vote] = {}
        for line in self._lines():
            vote = Vote.from_json(line)
            found[vote.judge, vote.clip] = vote
        return list(found.values())

    def of(self, judge: str) -> dict[str, Vote]:
        """One judge's votes, by clip."""
        return {vote.clip: vote for vote in self.votes() if vote.judge == judge}

    def add(self, vote: Vote) -> None:
        """Write a vote down; it is on the disk when this returns."""
        line = json.dumps(dataclasses.asdict(vote), sort_keys=True) + "\n"
        with self._lock, self._path.open("ab+") as file:
            file.seek(0, os.SEEK_END)
            if file.tell():
                file.seek(-1, os.SEEK_END)
                # A line that a dying machine left unfinished must not swallow the next.
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def _lines(self) -> list[str]:
        if not self._path.is_file():
            return []
        lines = self._path.read_text(encoding="utf-8").split("\n")
        return [line for line in lines if line.startswith("{") and line.endswith("}")]
