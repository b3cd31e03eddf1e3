"""A clip with its analysis and speech features, carried to where neither can be made, and opened there at any size.

What is carried lies in one folder: clip.mp4, speech.wav, and the product's own artefacts of them: shot.npz and
speech.npz, the latter in half precision and cut where the speech ends. Below 3 MB for four seconds.
"""

import math
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamhead.checkpoint import Checkpoint
from dreamhead.config import AnalysisSettings, DubSettings, OutputSettings, ReviewSettings
from dreamhead.media.audio import probe_audio, read_speech, write_wav
from dreamhead.media.encode import encode_chunk
from dreamhead.media.video import probe, read_frames
from dreamhead.pipelines.speech import CORE_S, FLOOR_DB
from dreamhead.records import Chunk, Job, ShotAnalysis, VideoInfo
from dreamhead.stages.artefacts import load_arrays, load_shot, save_arrays, save_shot, shot_arrays
from dreamhead.stages.plan import chunks_of_shots
from dreamhead.stages.prepare import PreparedJob, prepare
from dreamhead.stages.source import open_source
from dreamhead.stages.work import Work

SECONDS = 4.0
SPEECH_RATE = 16_000
LIMIT_BYTES = 3_000_000
REFERENCES = 12
"""Of the carried shot: enough to choose from, and each is a picture of 200 kB."""

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Opened:
    """A work directory in which the analysis and the speech features are there, and nothing else is."""

    work: Work
    prepared: PreparedJob
    chunk: Chunk
    shot: ShotAnalysis


def settings_of(threads: int) -> DubSettings:
    """Of a dub on a machine without MediaPipe: nothing looks at it afterwards. Work may be tried again and again."""
    values = {"max_attempts": 1_000_000}
    return DubSettings.model_validate(
        {
            "cpu_threads": threads,
            "output": OutputSettings(encoder_threads=threads),
            "review": ReviewSettings(gate="off"),
            "analysis": AnalysisSettings(reference_frames=REFERENCES),
            "pools": values,
        }
    )


def carry(folder: Path, video: str, audio: str, seconds: float = SECONDS) -> int:
    """Write what is carried, from a video of one shot with a face; its bytes. Raises SystemExit where it is too much.

    Needs all that an analysis needs.
    """
    # Only where it is made: neither MediaPipe nor Whisper is where it is used.
    from dreamhead.stages.analyse import AnalyseSpan

    folder.mkdir(parents=True, exist_ok=True)
    clip, speech = folder / "clip.mp4", folder / "speech.wav"
    info = probe(video)
    count = min(info.frame_count, round(seconds * float(info.average_rate)))
    _write(clip, read_frames(info, range(count)), info.width, info.height, info.average_rate, count)
    write_wav(speech, read_speech(audio, 0.0, min(seconds, probe_audio(audio).duration_s), SPEECH_RATE), SPEECH_RATE)
    settings, work_uri = settings_of(2), str(folder / "work")
    work = Work(work_uri, settings, Checkpoint.load())
    prepared = prepare(_job(clip, speech, folder, 0), work)
    with closing(AnalyseSpan(settings, "", work_uri)) as analyse:
        chunks = [chunk for span in prepared.spans for chunk in analyse(span)]
    if len(chunks) != 1 or chunks[0].error:
        raise SystemExit(f"{video}: expected one shot without an error, got {[chunk.error for chunk in chunks]}")
    shot = load_shot(chunks[0].analysis_uri)
    np.savez_compressed(folder / "shot.npz", **shot_arrays(shot))  # type: ignore[arg-type]
    features, level_db, rate = load_arrays(work.speech_uri(prepared.job, 0), "features", "level_db", "rate")
    heard = math.ceil((seconds + 1.0) * float(rate))
    np.savez_compressed(
        folder / "speech.npz", features=features[:heard].astype(np.float16), level_db=level_db[:heard], rate=rate
    )
    shutil.rmtree(folder / "work")
    size = sum(path.stat().st_size for path in folder.iterdir())
    if size > LIMIT_BYTES:
        raise SystemExit(f"{folder}: {size} bytes; at most {LIMIT_BYTES} are carried")
    return size


def open_scaled(
    carried: Path, folder: Path, size: tuple[int, int], frames: int, threads: int, number: int = 0
) -> Opened:
    """The carried clip's first frames, grown to (width, height) and framed by their own mirror image, and their work.

    Args:
        number: of the job: those of one folder share the clip and its analysis.
    """
    folder.mkdir(parents=True, exist_ok=True)
    info, shot = probe(str(carried / "clip.mp4")), load_shot(str(carried / "shot.npz"))
    count = min(frames, info.frame_count)
    factor, corner = _placed((info.width, info.height), size)
    clip = folder / "clip.mp4"
    if not clip.exists():
        pictures = (_grown(frame, factor, size) for frame in read_frames(info, range(count)))
        _write(clip, pictures, *size, info.average_rate, count)
    work = Work(str(folder / "work"), settings_of(threads), Checkpoint.load())
    prepared = prepare(_job(clip, carried / "speech.wav", folder, number), work)
    moved = _moved(shot, factor, corner, count)
    save_shot(work.shot_uri(prepared.job, 0, count), moved)
    work.finish_span(prepared.job, 0, count, [(0, count)])
    _publish_speech(carried / "speech.npz", prepared.job, work)
    (chunk,) = chunks_of_shots(prepared.job, open_source(prepared.job, work), [(0, count)], work)
    if chunk.stop - chunk.start != count:
        raise SystemExit(f"{clip}: one chunk of {count} frames was expected, got {chunk.start} to {chunk.stop}")
    return Opened(work, prepared, chunk, moved)


def _job(clip: Path, speech: Path, folder: Path, number: int) -> Job:
    return Job(
        job_id=f"bench{number}",
        row=number,
        video_uri=str(clip.absolute()),
        audio_uri=str(speech.absolute()),
        output_uri=str(folder.absolute() / f"out{number}.mp4"),
    )


def _placed(own: tuple[int, int], size: tuple[int, int]) -> tuple[float, tuple[int, int]]:
    """By how much a clip grows to fill the smaller side, and where its corner then lies."""
    factor = min(size[0] / own[0], size[1] / own[1])
    return factor, ((size[0] - round(own[0] * factor)) // 2, (size[1] - round(own[1] * factor)) // 2)


def _grown(frame: Picture, factor: float, size: tuple[int, int]) -> Picture:
    height, width = (round(side * factor) for side in frame.shape[:2])
    grown = cv2.resize(frame, (width, height), interpolation=cv2.INTER_CUBIC)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    edges = top, size[1] - height - top, left, size[0] - width - left
    return np.asarray(cv2.copyMakeBorder(grown, *edges, cv2.BORDER_REFLECT), np.uint8)


def _moved(shot: ShotAnalysis, factor: float, corner: tuple[int, int], count: int) -> ShotAnalysis:
    """The analysis of the grown clip: p -> factor p + shift, as OpenCV's resize moves the pixels' centres."""
    shift = np.array(corner) + (factor - 1) / 2
    landmarks = shot.landmarks[:count] * np.float32(factor)
    landmarks[..., :2] += shift.astype(np.float32)
    crops = shot.crops[:count].astype(np.float64)
    crops[:, :, :2] /= factor
    crops[:, :, 2] -= crops[:, :, :2] @ shift
    return replace(
        shot, start=0, stop=count, landmarks=landmarks, routes=shot.routes[:count], crops=crops.astype(np.float32)
    )


def _publish_speech(path: Path, job: Job, work: Work) -> None:
    features, level_db, rate = load_arrays(str(path), "features", "level_db", "rate")
    count = round(CORE_S * float(rate))
    full = np.zeros((count, features.shape[1]), np.float32)
    full[: len(features)] = features
    level = np.full(count, FLOOR_DB, np.float32)
    level[: len(level_db)] = level_db
    save_arrays(work.speech_uri(job, 0), features=full, level_db=level, rate=rate)


def _write(path: Path, frames: Iterator[Picture], width: int, height: int, rate: Fraction, count: int) -> None:
    info = VideoInfo(
        uri=str(path),
        width=width,
        height=height,
        rotation=0,
        sample_aspect_ratio=Fraction(1),
        average_rate=Fraction(rate),
        time_base=1 / Fraction(rate),
        pts=np.arange(count),
        end_pts=count,
        color=(1, 1, 1, 1),
        has_audio=False,
    )
    written = encode_chunk(path, frames, info, info.pts, info.end_pts, OutputSettings(preset="superfast"))
    if written != count:
        raise SystemExit(f"{path}: {written} frames were written, {count} were expected")
