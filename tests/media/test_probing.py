"""Files are looked into by a process that may die of them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dreamhead.errors import MediaError
from dreamhead.media import probing


def crashing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Put in the decoder's place, in the other process, what kills that process over files called `poison`."""
    script = (
        "import os, signal, sys; from dreamhead.media import probing\n"
        f"real = probing.{name}\n"
        "def deadly(uri, *more):\n"
        "    if 'poison' in str(getattr(uri, 'uri', uri)): os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return real(uri, *more)\n"
        f"probing.{name} = deadly\n"
        "probing.main(*sys.argv[1:])\n"
    )
    monkeypatch.setattr(probing, "PROBE", (sys.executable, "-c", script))


@pytest.mark.parametrize("decoder", ["probe", "read_frames"])
def test_a_crash_over_a_video_names_it(make_video: Any, monkeypatch: pytest.MonkeyPatch, decoder: str) -> None:
    uri = make_video("poison.mp4", sound_s=1)
    crashing(monkeypatch, decoder)
    with pytest.raises(MediaError) as caught:
        probing.look_first({"video_uri": ("video", uri), "audio_uri": ("audio", uri)})
    assert str(caught.value) == (
        f"video_uri: {uri}: the decoder crashed over it (SIGSEGV); re-encode the file, or give another"
    )


@pytest.mark.parametrize("decoder", ["probe_audio", "read_speech"])
def test_a_crash_over_speech_names_it(
    make_video: Any, make_tone: Any, monkeypatch: pytest.MonkeyPatch, decoder: str
) -> None:
    video, audio = make_video(), make_tone("poison.wav")
    crashing(monkeypatch, decoder)
    with pytest.raises(MediaError, match=rf"^audio_uri: {audio}: the decoder crashed over it \(SIGSEGV\)"):
        probing.look_first({"video_uri": ("video", video), "audio_uri": ("audio", audio)})
    with pytest.raises(MediaError, match=rf"^{audio}: the decoder crashed"):
        probing.look_first({"": ("any", audio)})


def test_what_is_only_wrong_is_left_to_the_next_reader(tmp_path: Path, make_tone: Any) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    probing.look_first({"video_uri": ("video", str(tmp_path / "text.mp4")), "audio_uri": ("audio", make_tone())})
    probing.look_first({"": ("any", str(tmp_path / "gone.mp4"))})


def test_the_process_says_what_it_begins_with_and_what_it_found(make_video: Any, make_tone: Any) -> None:
    files = [f"video={make_video()}", f"audio={make_tone(seconds=2.0)}", f"opened-audio={make_tone('b.wav', 3.0)}"]
    files.append(f"any={make_video('both.mkv', sound_s=0.5)}")
    ended = subprocess.run([*probing.PROBE, *files], capture_output=True, check=True, env={**os.environ})
    *begun, last = map(json.loads, ended.stdout.splitlines())
    assert [line["begin"] for line in begun] == files
    assert list(last["seconds"].values()) == pytest.approx([1.0, 2.0, 3.0, 1.0], abs=0.02)


def test_a_line_that_broke_off_is_no_file() -> None:
    assert probing.begun_last(b"") == ""
    assert probing.begun_last(b'{"begin": "video=a"}\n{"beg') == "video=a"
