"""Reading speech by time."""

import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dreamhead.errors import MediaError, StorageError
from dreamhead.media.audio import probe_audio, read_speech, write_wav
from dreamhead.media.video import probe

KINDS = [
    ("tone.wav", "pcm_s16le", "stereo", 44_100, 0.0),
    ("tone.wav", "pcm_s24le", "5.1", 48_000, 0.0),
    ("tone.wav", "pcm_u8", "mono", 8_000, 0.0),
    ("tone.wav", "pcm_f32le", "mono", 16_000, 0.0),
    ("tone.flac", "flac", "stereo", 44_100, 0.0),
    ("tone.m4a", "aac", "stereo", 44_100, 0.002),
    ("tone.mp3", "libmp3lame", "mono", 44_100, 0.002),
    ("tone.ogg", "libopus", "mono", 48_000, 0.002),
]


@pytest.mark.parametrize(("name", "codec", "layout", "rate", "tolerance"), KINDS)
def test_every_kind_is_the_tone_in_time(
    make_tone: Any, name: str, codec: str, layout: str, rate: int, tolerance: float
) -> None:
    uri = make_tone(name, 3.0, rate=rate, layout=layout, codec=codec)
    info = probe_audio(uri)
    assert (info.sample_rate, info.channels) == (rate, len(av.AudioLayout(layout).channels))
    assert info.duration_s == pytest.approx(3.0, abs=1e-9)
    samples = read_speech(uri, 0.0, 3.0)
    assert samples.dtype == np.float32
    assert samples.shape == (48_000,)
    inner = slice(800, -800)
    assert np.abs(samples - make_tone.sine(3.0, 16_000))[inner].max() < 0.01 + 20 * tolerance
    for start_s, stop_s in ((1.7, 2.3), (0.1234567, 0.9), (2.9, 3.0)):
        part = read_speech(uri, start_s, stop_s)
        first = round(start_s * 16_000)
        assert np.abs(part - samples[first : first + len(part)]).max() <= tolerance


def test_outside_the_file_is_silence(make_tone: Any) -> None:
    uri = make_tone(seconds=1.0)
    whole = read_speech(uri, 0.0, 1.0)
    around = read_speech(uri, -0.5, 1.5)
    assert len(around) == 32_000
    assert not around[:8_000].any()
    assert not around[24_000:].any()
    assert np.array_equal(around[8_000:24_000], whole)
    assert not read_speech(uri, 5.0, 6.0).any()
    assert not read_speech(uri, -2.0, -1.0).any()


def test_length_is_rounded(make_tone: Any) -> None:
    uri = make_tone()
    assert len(read_speech(uri, 0.1, 0.1 + 333.4 / 16_000)) == 333
    assert len(read_speech(uri, 0.0, 0.5, sample_rate=22_050)) == 11_025


def test_wave_extensible_and_24_bit(tmp_path: Path) -> None:
    path = tmp_path / "extensible.wav"
    values = np.array([[0, 0], [2**22, -(2**22)], [2**22, 2**22]], dtype="<i4").repeat(4000, axis=0)
    data = values.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    form = bytes.fromhex("fe ff 02 00 80 3e 00 00 00 77 01 00 06 00 18 00 16 00 18 00 03 00 00 00")
    guid = bytes.fromhex("01 00 00 00 00 00 10 00 80 00 00 aa 00 38 9b 71")
    body = b"WAVEfmt " + (40).to_bytes(4, "little") + form + guid + b"data" + len(data).to_bytes(4, "little") + data
    path.write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    assert probe_audio(str(path)).codec == "pcm_s24le"
    samples = read_speech(str(path), 0.0, 0.75)
    assert [samples[2000], samples[6000], samples[10_000]] == [0.0, 0.0, 0.5]


@pytest.mark.parametrize(("name", "priming_s"), [("late.mp4", 0.0), ("late.mkv", 0.0), ("late.ts", 1024 / 16_000)])
def test_sound_of_a_video_starts_at_the_earliest_of_its_streams(make_video: Any, name: str, priming_s: float) -> None:
    on_time = make_video("on_time.mp4", 50, sound_s=2.0)
    late = make_video(name, 50, pts=[10 + index for index in range(50)], sound_s=2.0)
    heard, expected = read_speech(late, priming_s, 1.0 + priming_s), read_speech(on_time, 0.0, 1.0)
    assert np.abs(heard - expected).max() < 0.05
    assert probe_audio(late).duration_s == pytest.approx(probe_audio(on_time).duration_s, abs=0.12)
    assert probe(late).times_s[0] == pytest.approx(0.4, abs=0.07)


def test_write_wav(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    write_wav(path, np.array([0.0, 0.5, -1.0, 2.0], dtype=np.float32), 8_000)
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (1, 8_000, 2)
        assert np.frombuffer(file.readframes(4), "<i2").tolist() == [0, 16384, -32767, 32767]
    write_wav(path, np.zeros((5, 2), dtype=np.float32), 8_000)
    assert probe_audio(str(path)).channels == 2
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/out\.wav: can't write: File exists"):
        write_wav(tmp_path / "file" / "out.wav", np.zeros(5, dtype=np.float32), 8_000)


def test_unusable_files_are_named(make_video: Any, tmp_path: Path) -> None:
    empty = tmp_path / "empty.wav"
    write_wav(empty, np.zeros(0, dtype=np.float32), 16_000)
    text = tmp_path / "text.wav"
    text.write_text("not sound" * 50)
    for uri, message in {
        str(tmp_path / "none.wav"): r"none\.wav: no such file",
        str(empty): r"empty\.wav: (its sound has no length|can't be opened as media)",
        str(text): r"text\.wav: can't be opened as media: Invalid data",
        make_video(frames=2): r"clip\.mp4: holds no audio stream",
    }.items():
        with pytest.raises(MediaError, match=message):
            probe_audio(uri)


@pytest.mark.clips
def test_real_speech(clips: Path) -> None:
    german = str(clips / "speech" / "german.wav")
    info = probe_audio(german)
    assert (info.sample_rate, info.channels, info.codec) == (48_000, 2, "pcm_s24le")
    whole = read_speech(german, 0.0, info.duration_s)
    assert np.array_equal(read_speech(german, 3.3, 5.1), whole[52_800:81_600])
