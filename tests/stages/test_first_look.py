"""A decoder that crashes over an input costs a failed row, not the process that dubs."""

import sys
from typing import Any

import pytest

from dreamhead.media import probing

Studio = Any  # The fixture's own class; conftest modules can't be imported.

SCRIPT = (
    "import os, signal, sys; from dreamhead.media import probing\n"
    "probing.{} = lambda uri: os.kill(os.getpid(), signal.SIGSEGV)\n"
    "probing.main(*sys.argv[1:])\n"
)


@pytest.mark.parametrize(("decoder", "column"), [("probe", "video_uri"), ("probe_audio", "audio_uri")])
def test_a_crash_is_a_failed_row_that_names_the_file(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, decoder: str, column: str
) -> None:
    job = studio.job(studio.clip(10), studio.speech(0.4))
    monkeypatch.setattr(probing, "PROBE", (sys.executable, "-c", SCRIPT.format(decoder)))
    row = studio.dub(job)
    assert (row["status"], row["error_type"]) == ("failed", "MediaError")
    assert row["error"].startswith(f"{column}: {getattr(job, column)}: the decoder crashed over it (SIGSEGV)")
    assert not studio.calls.walked


def test_inputs_that_were_read_before_are_left_alone(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    job = studio.job(studio.clip(10), studio.speech(0.4))
    assert studio.dub(job)["status"] == "succeeded"
    monkeypatch.setattr(probing, "PROBE", (sys.executable, "-c", SCRIPT.format("probe")))
    assert studio.dub(job)["status"] == "succeeded"
