"""Orders and sides, and votes that outlast what happens to a machine."""

from pathlib import Path

import pytest

from dreamhead.errors import InputError
from dreamhead.evaluation.blind.ballot import VOTES, Dubs, Shown, Vote, VoteBook, order_for

CLIPS = [f"clip {number}" for number in range(11)]


def test_every_clip_is_shown_once_and_each_dub_is_on_the_left_as_often() -> None:
    lefts = []
    for judge in ("Anna", "Béla", "Chen"):
        order = order_for(judge, CLIPS, 0)
        assert sorted(shown.clip for shown in order) == sorted(CLIPS)
        count = sum(shown.left == "a" for shown in order)
        assert count in (5, 6)
        lefts.append(tuple(shown.left for shown in order))
    assert len(set(lefts)) == 3
    # The odd one out isn't always the same dub's.
    odd = {sum(shown.left == "a" for shown in order_for("Anna", CLIPS, seed)) for seed in range(20)}
    assert odd == {5, 6}
    assert {order_for("Anna", ["only"], seed)[0].left for seed in range(20)} == {"a", "b"}


def test_an_order_depends_on_judge_and_seed_alone() -> None:
    order = order_for("Anna", CLIPS, 3)
    assert order_for("Anna", CLIPS[::-1], 3) == order
    assert order_for("Anna", CLIPS, 4) != order
    assert order_for("Bela", CLIPS, 3) != order


def test_a_side_is_a_dub() -> None:
    shown = Shown("clip", "b")
    assert (shown.on("left"), shown.on("right")) == ("b", "a")
    assert (shown.preferred("left"), shown.preferred("right"), shown.preferred("equal")) == ("b", "a", "equal")


@pytest.fixture
def dubs(tmp_path: Path) -> list[Dubs]:
    found = []
    for clip in ("one", "two"):
        a, b = (tmp_path / f"{clip}-{which}.mp4" for which in "ab")
        a.write_text(f"{clip} a")
        b.write_text(f"{clip} b")
        found.append(Dubs(clip, a, b))
    return found


def test_the_last_vote_on_a_clip_counts_and_is_there_after_a_restart(tmp_path: Path, dubs: list[Dubs]) -> None:
    book = VoteBook(tmp_path / "votes", "A", "B", dubs)
    for judge, clip, preferred in (("x", "one", "a"), ("x", "two", "equal"), ("y", "one", "a"), ("x", "one", "b")):
        book.add(Vote(judge, clip, preferred, "a", 2.5))  # type: ignore[arg-type]
    again = VoteBook(tmp_path / "votes", "elsewhere/A", "B", dubs[::-1])
    assert again.of("x") == {"one": Vote("x", "one", "b", "a", 2.5), "two": Vote("x", "two", "equal", "a", 2.5)}
    assert len(again.votes()) == 3
    assert again.of("nobody") == {}


def test_a_line_that_was_cut_off_costs_no_other_vote(tmp_path: Path, dubs: list[Dubs]) -> None:
    book = VoteBook(tmp_path / "votes", "A", "B", dubs)
    book.add(Vote("x", "one", "a", "a", 1.0))
    with (tmp_path / "votes" / VOTES).open("a") as file:
        file.write('{"judge": "x", "cl')
    book.add(Vote("x", "two", "b", "a", 1.0))
    assert {vote.clip: vote.preferred for vote in book.votes()} == {"one": "a", "two": "b"}


def test_votes_on_other_videos_arent_mixed_in(tmp_path: Path, dubs: list[Dubs]) -> None:
    VoteBook(tmp_path / "votes", "first", "second", dubs)
    dubs[1].b.write_text("another take")
    with pytest.raises(InputError, match=r"votes: holds votes on other videos, those of first and second; .*--output"):
        VoteBook(tmp_path / "votes", "first", "second", dubs)
