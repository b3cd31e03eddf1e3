"""Prepare one source: find its clips, judge them, measure the lag of its sound, write shards and report rows."""

import hashlib
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dreamhead import pretrained, storage
from dreamhead.checkpoint import Checkpoint
from dreamhead.config import PreparationSettings
from dreamhead.errors import DreamheadError, InputError, StorageError
from dreamhead.faces.detection import FaceDetector
from dreamhead.media.video import probe
from dreamhead.models import audio_encoder
from dreamhead.models.audio_encoder import SAMPLE_RATE
from dreamhead.pipelines.analysis import VideoAnalyser
from dreamhead.records import VideoInfo
from dreamhead.stages.attempts import attempt
from dreamhead.stages.preparation import judge, ledger
from dreamhead.stages.preparation.ledger import Ledger, Row
from dreamhead.stages.preparation.offset import ClipFit, LagEstimate, LandmarkOffset, OffsetMeter
from dreamhead.stages.preparation.pictures import Pictures, take_pictures, take_sheet
from dreamhead.stages.preparation.sound import Sound, read_sound
from dreamhead.stages.preparation.source import Source
from dreamhead.stages.preparation.sync import SyncOffset
from dreamhead.stages.preparation.tracks import Candidate, analysis_settings, find_candidates
from dreamhead.stages.preparation.variants import Variants, on_features
from dreamhead.stages.work import fingerprint
from dreamhead.training.dataset import write_clips

NOT_SHAPING = {"cpu_threads", "pool", "max_attempts", "no_progress_timeout_s", "weights"}
"""Settings that change nothing in the shards."""


@dataclass(frozen=True, kw_only=True)
class Networks:
    """Where the weights that measure the lag are."""

    checkpoint_uri: str = ""
    """The bundled one unless given."""
    syncnet: str = ""
    """Path of SyncNet's weights; measured by the checkpoint's first stage unless given."""

    def digest(self) -> str:
        """Of all that a lag depends on; raises CheckpointError, StorageError."""
        if self.syncnet:
            return hashlib.sha256(storage.read_bytes(self.syncnet)).hexdigest()
        return Checkpoint.load(self.checkpoint_uri).landmarks_digest


def source_fingerprint(source: Source, settings: PreparationSettings, networks_digest: str) -> str:
    """Digest of all that a source's shards depend on."""
    shaping = settings.model_dump(mode="json", exclude=NOT_SHAPING)
    return fingerprint(source.to_json(), shaping, networks_digest)


@dataclass(frozen=True, kw_only=True, eq=False)
class Heard:
    """What a source's sound is worth."""

    sound: Sound | None
    estimate: LagEstimate | None
    fits: dict[int, ClipFit]
    """By the clip's first frame."""
    reason: str = ""
    """Why none of its clips is spoken."""


class PrepareSource:
    """Holds the networks; call it on one source after the other."""

    def __init__(self, settings: PreparationSettings, networks: Networks, output_uri: str) -> None:
        torch.set_num_threads(settings.cpu_threads)
        self._settings = settings
        self._ledger = Ledger(output_uri)
        self._networks_digest = networks.digest()
        self._analyser = VideoAnalyser(analysis_settings(settings), settings.weights)
        self._detector = FaceDetector(pretrained.face_landmarker(settings.weights.face_landmarker))
        self._encoder = audio_encoder.build(settings.speech_encoder, settings.weights, settings.cpu_threads)
        self._meter = self._open_meter(networks)

    def close(self) -> None:
        """Free the detectors."""
        self._analyser.close()
        self._detector.close()

    def __call__(self, source: Source) -> Row:
        """Prepare a source and publish what became of it; returns its row, failed or not.

        Raises StorageError when the data set itself can't be written.
        """
        failure: DreamheadError | None = None
        for _ in range(self._settings.max_attempts):
            try:
                with attempt(self._ledger.attempts_uri(source), self._settings.max_attempts, source.uri):
                    return self._prepare(source)
            except StorageError as error:
                failure = error
            except DreamheadError as error:
                failure = error
                break
        assert failure is not None
        self._ledger.fail(source, failure)
        return ledger.failed_row(source, failure)

    def _open_meter(self, networks: Networks) -> OffsetMeter:
        settings = self._settings
        if networks.syncnet:
            return SyncOffset(networks.syncnet, settings.offset)
        checkpoint, encoder = Checkpoint.load(networks.checkpoint_uri), self._encoder
        if checkpoint.config.speech_encoder != encoder.name:
            name = checkpoint.config.speech_encoder
            encoder = audio_encoder.build(name, settings.weights, settings.cpu_threads)
        return LandmarkOffset(checkpoint, encoder, settings.offset)

    def _prepare(self, source: Source) -> Row:
        began = time.perf_counter()
        info = probe(source.uri)
        start, stop = frame_range(info, source)
        clips = list(find_candidates(info, start, stop, self._analyser, self._settings))
        refused = {clip.start: judge.refused(clip, self._settings) for clip in clips}
        heard = self._hear(source, info, [clip for clip in clips if not refused[clip.start]])
        report: list[Row] = []
        shards = self._write_shards(source, self._rows(source, info, clips, refused, heard, report))
        row = ledger.source_row(
            source,
            ledger.PREPARED,
            reasons=[] if clips else ["no face"],
            frames=stop - start,
            seconds=float(info.times_s[stop - 1] - info.times_s[start]) + 1 / float(info.average_rate),
            frame_rate=float(info.average_rate),
            shards=shards,
            fingerprint=source_fingerprint(source, self._settings, self._networks_digest),
            **_lag_columns(heard.estimate),
        )
        self._ledger.finish(source, [row, *report])
        return row | {"wall_s": time.perf_counter() - began, "clips": _count(report)}

    def _hear(self, source: Source, info: VideoInfo, clips: Sequence[Candidate]) -> Heard:
        """Read the sound and measure its lag, where there is speech to be expected."""
        if not source.spoken:
            return Heard(sound=None, estimate=None, fits={}, reason="said not to be speech")
        if not info.has_audio:
            return Heard(sound=None, estimate=None, fits={}, reason="no sound")
        if not clips:
            return Heard(sound=None, estimate=None, fits={})
        sound = read_sound(source.uri, clips[0].start_s, clips[-1].start_s + clips[-1].seconds)
        loud = [clip for clip in clips if not judge.is_silent(clip, sound, self._settings)]
        if not loud:
            return Heard(sound=sound, estimate=None, fits={})
        estimate, fits = self._meter(info, loud, sound)
        by_start = {clip.start: fit for clip, fit in zip(loud, fits, strict=True)}
        return Heard(sound=sound, estimate=estimate, fits=by_start, reason="" if estimate.is_sure else "lag not sure")

    def _rows(
        self,
        source: Source,
        info: VideoInfo,
        clips: Sequence[Candidate],
        refused: dict[int, list[str]],
        heard: Heard,
        report: list[Row],
    ) -> Iterator[Row]:
        """Yield the rows of CLIP_SCHEMA of the clips that pass, and put a row on every clip into `report`."""
        lag_s = on_features(heard.estimate.lag_s, self._encoder.rate) if heard.estimate else 0.0
        variants = Variants(self._encoder, heard.sound, lag_s, self._settings.variants) if heard.sound else None
        for clip in clips:
            line = clip_line(source, clip, refused[clip.start])
            report.append(line)
            if refused[clip.start]:
                line |= {ledger.SHEET: take_sheet(info, clip, self._settings)}
                continue
            pictures = take_pictures(info, clip, self._detector, self._settings)
            line |= _picture_columns(pictures)
            if reasons := judge.unfit(pictures, self._settings):
                line |= {"status": ledger.REJECTED, "reasons": reasons}
                continue
            unheard = judge.unheard(clip, pictures, heard.sound, heard.fits.get(clip.start), self._settings)
            reasons = [heard.reason] if heard.reason else unheard
            line |= {"status": ledger.PICTURES if reasons else ledger.SPOKEN, "reasons": reasons}
            if heard.sound is not None:
                line |= {"level_db": heard.sound.level_db(clip.start_s, clip.start_s + clip.seconds)}
            if clip.start in heard.fits:
                line |= {"lag_fit": heard.fits[clip.start].score}
            row = self._clip_row(source, clip, str(line["clip_id"]), pictures)
            if not reasons and variants is not None and heard.sound is not None:
                line |= {"lag_s": lag_s}
                row |= {
                    "spoken": True,
                    "speech": speech_of(heard.sound, clip, lag_s),
                    "speech_lag_s": lag_s,
                    "features": variants(str(line["clip_id"]), clip.start_s, clip.seconds),
                }
            yield row

    def _clip_row(self, source: Source, clip: Candidate, clip_id: str, pictures: Pictures) -> Row:
        """A row of CLIP_SCHEMA without speech."""
        return {
            "clip_id": clip_id,
            "speaker": source.speaker,
            "source_uri": source.uri,
            "start_s": clip.start_s,
            "frames": len(clip.times_s),
            "frame_rate": clip.frame_rate,
            "crop_size": self._settings.crop_size,
            "landmarks": clip.landmarks.astype(np.float32).tobytes(),
            "transforms": clip.transforms.astype(np.float32).tobytes(),
            "neutral": clip.track.neutral.astype(np.float32).tobytes(),
            "articulation": clip.track.articulation,
            "spoken": False,
            "crops": pictures.crops,
            "speech": b"",
            "speech_lag_s": 0.0,
            "speech_encoder": self._encoder.name,
            "features": [],
            "feature_size": self._encoder.feature_size,
            "feature_rate": self._encoder.rate,
        }

    def _write_shards(self, source: Source, rows: Iterator[Row]) -> list[str]:
        """Write files of a bounded size; returns their names."""
        names: list[str] = []
        for part in _parts(rows, self._settings.part_mb * 1_000_000):
            names.append(self._ledger.shard_name(source, len(names)))
            write_clips(storage.join(self._ledger.uri, names[-1]), part)
        return names


def frame_range(info: VideoInfo, source: Source) -> tuple[int, int]:
    """[start, stop) frames of the source's stretch; raises InputError when there is none."""
    end_s = math.inf if source.end_s is None else source.end_s
    times_s = info.times_s + 1e-6
    start, stop = int(np.searchsorted(times_s, source.start_s)), int(np.searchsorted(times_s, end_s))
    if stop <= start:
        raise InputError(
            f"{source.uri}: no frame from start_s {source.start_s:g} to end_s {end_s:g}; "
            f"the video is {info.duration_s:g} s long"
        )
    return start, stop


def clip_line(source: Source, clip: Candidate, refused: list[str]) -> Row:
    """The report's row of a clip, with all that is known without its pictures and its sound."""
    yaw, pitch = clip.turned_deg()
    return {
        "kind": ledger.CLIP,
        "source": source.name,
        "clip_id": f"{source.name}-{clip.start:06d}",
        "source_uri": source.uri,
        "speaker": source.speaker,
        "split": source.split,
        "status": ledger.REJECTED,
        "reasons": refused,
        "error": "",
        "start_s": clip.start_s,
        "seconds": clip.seconds,
        "frames": len(clip.times_s),
        "frame_rate": clip.frame_rate,
        "face_px": clip.face_px(),
        "yaw_deg": yaw,
        "pitch_deg": pitch,
        "detected_share": clip.track.detected_share,
        "unevenness": clip.unevenness(),
    }


def speech_of(sound: Sound, clip: Candidate, lag_s: float) -> bytes:
    """The clip's own speech, int16 mono at 16 kHz."""
    first = round((clip.start_s + lag_s) * SAMPLE_RATE)
    samples = sound.read(first, first + round(clip.seconds * SAMPLE_RATE))
    return np.clip(np.round(samples * 32767.0), -32768, 32767).astype("<i2").tobytes()


def _parts(rows: Iterator[Row], most_bytes: int) -> Iterator[Iterator[Row]]:
    """Cut a stream of rows into streams of about so many bytes; each must be used up before the next is taken."""
    for first in rows:
        yield _part(itertools.chain([first], rows), most_bytes)


def _part(rows: Iterator[Row], most_bytes: int) -> Iterator[Row]:
    written = 0
    for row in rows:
        yield row
        written += _bytes_of(row)
        if written >= most_bytes:
            return


def _bytes_of(value: Any) -> int:
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_bytes_of, value.values()))
    return sum(map(_bytes_of, value)) if isinstance(value, list) else 0


def _lag_columns(estimate: LagEstimate | None) -> Row:
    if estimate is None:
        return {}
    return {
        "lag_s": estimate.lag_s,
        "lag_score": estimate.score,
        "lag_margin": estimate.margin,
        "lag_method": estimate.method,
        "lag_sure": estimate.is_sure,
    }


def _picture_columns(pictures: Pictures) -> Row:
    return {
        "sharpness": pictures.sharpness,
        "brightness": pictures.brightness,
        "second_face": pictures.second_face,
        ledger.SHEET: pictures.sheet,
    }


def _count(report: Sequence[Row]) -> dict[str, int]:
    names = (ledger.SPOKEN, ledger.PICTURES, ledger.REJECTED)
    return {name: sum(row["status"] == name for row in report) for name in names}
