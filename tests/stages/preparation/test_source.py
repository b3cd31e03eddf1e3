"""A source's name is its own in every run; speakers fall into splits by their names."""

import dataclasses

from dreamhead.stages.preparation.source import Source, falls_into_validation, stem_of

SOURCE = Source(uri="/videos/a b.c.mp4", speaker="anna", split="train")


def test_a_name_is_plain_and_tells_stretches_apart() -> None:
    assert SOURCE.stem == "a b.c"
    assert SOURCE.name.startswith("a_b.c-")
    assert len(SOURCE.name) == len("a_b.c-") + 8
    assert SOURCE.name == dataclasses.replace(SOURCE, speaker="other", split="validation", digest="x").name
    others = [{"uri": "/other/a b.c.mp4"}, {"start_s": 1.0}, {"end_s": 2.0}]
    assert len({SOURCE.name, *(dataclasses.replace(SOURCE, **other).name for other in others)}) == 4
    assert dataclasses.replace(SOURCE, uri="/videos/.日.mp4").name.startswith("_-")


def test_json_is_read_back() -> None:
    source = dataclasses.replace(SOURCE, start_s=1.5, end_s=2.0, spoken=False, digest="d")
    assert Source.from_json(source.to_json()) == source


def test_stems() -> None:
    assert [stem_of(uri) for uri in ("s3://b/x.y/clip.mp4", "clip", "/a/.mp4")] == ["clip", "clip", ".mp4"]


def test_about_the_share_falls_into_validation_and_stays_there() -> None:
    names = [f"speaker {number}" for number in range(1000)]
    tenth = {name for name in names if falls_into_validation(name, 0.1)}
    fifth = {name for name in names if falls_into_validation(name, 0.2)}
    assert 70 < len(tenth) < 130
    assert tenth < fifth
    assert not any(falls_into_validation(name, 0.0) for name in names)
