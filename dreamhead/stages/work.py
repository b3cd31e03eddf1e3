"""The work directory's layout: artefacts lie under names of what they depend on, so a change redoes only that.

work/
  running/                                *.json: which runs are at work here, one for each results file
  inputs/                                 *.json, *.npz: digests of files and what probing found in them
  analysis/<video digest>/<analysis>/     shot-*.npz, then span-*.json which lists them: written last = done
  speech/<audio digest>/<encoder>/        %05d.npz, windows of features on an absolute grid
  jobs/<job id>/<landmarks>/              landmarks-*.npz
  jobs/<job id>/<render>/                 chunk-*.mp4, then chunk-*.json: written last = done; result.json
  jobs/<job id>/<render>/attempts/        counts of this run's tries; failed.json stays until the job is tried again
"""

import hashlib
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pydantic import BaseModel

from dreamhead import __version__, storage
from dreamhead.checkpoint import Checkpoint
from dreamhead.config import DubSettings
from dreamhead.records import Chunk, Job
from dreamhead.stages.artefacts import load_json, save_json

FINGERPRINT_CHARS = 16
READS_AT_ONCE = 8
"""Sidecars are small: what takes time is to wait for object storage."""
SIDECAR = re.compile(r"chunk-(\d{8})-(\d{8})\.json")


class Work:
    """Names of one work directory's files for one set of settings and weights."""

    def __init__(self, uri: str, settings: DubSettings, checkpoint: Checkpoint) -> None:
        self.uri = uri
        self.settings = settings
        self._encoder = checkpoint.config.speech_encoder
        self._landmarks_digest = checkpoint.landmarks_digest
        self._render_digest = checkpoint.render_digest(settings.render.renderer)

    def analysis_fingerprint(self, job: Job) -> str:
        """Digest of all that a video's analysis depends on."""
        return fingerprint(job.video_digest, job.face, self.settings.analysis)

    def landmarks_fingerprint(self, job: Job) -> str:
        """Digest of all that a job's landmarks depend on."""
        return fingerprint(
            self.analysis_fingerprint(job),
            job.audio_digest,
            job.on_longer_audio,
            job.seed,
            self.settings.landmarks,
            self._encoder,
            self._landmarks_digest,
        )

    def render_fingerprint(self, job: Job) -> str:
        """Digest of all that a job's frames depend on."""
        segments = [[segment.start_s, segment.end_s] for segment in job.segments]
        return fingerprint(
            self.landmarks_fingerprint(job), segments, self.settings.render, self.settings.output, self._render_digest
        )

    def input_uri(self, suffix: str, *key: object) -> str:
        """What is known of an input file, or of a content."""
        return storage.join(self.uri, "inputs", f"{fingerprint(*key)}{suffix}")

    def shot_uri(self, job: Job, start: int, stop: int) -> str:
        """One shot's analysis."""
        return self._analysis(job, f"shot-{start:08d}-{stop:08d}.npz")

    def span_uri(self, job: Job, start: int, stop: int) -> str:
        """The list of a span's shots."""
        return self._analysis(job, f"span-{start:08d}-{stop:08d}.json")

    def speech_uri(self, job: Job, window: int) -> str:
        """One window of speech features."""
        return storage.join(self.speech_dir(job.audio_digest), self._encoder, f"{window:05d}.npz")

    def landmarks_uri(self, chunk: Chunk) -> str:
        """One chunk's target landmarks."""
        return self._job(chunk.job, self.landmarks_fingerprint(chunk.job), f"landmarks-{_range(chunk)}.npz")

    def chunk_uri(self, chunk: Chunk) -> str:
        """One chunk's encoded frames."""
        return self._job(chunk.job, self.render_fingerprint(chunk.job), f"chunk-{_range(chunk)}.mp4")

    def sidecar_uri(self, chunk: Chunk) -> str:
        """The facts about one chunk; it exists when the chunk is done."""
        return self._job(chunk.job, self.render_fingerprint(chunk.job), f"chunk-{_range(chunk)}.json")

    def result_uri(self, job: Job) -> str:
        """The job's result; it exists when the job is done."""
        return self._job(job, self.render_fingerprint(job), "result.json")

    def attempts_uri(self, job: Job, stage: str, start: int, stop: int) -> str:
        """The count of one piece's tries."""
        return storage.join(self.attempts_dir(job), f"{stage}-{start:08d}-{stop:08d}.json")

    def attempts_dir(self, job: Job) -> str:
        """Where the counts of a job's tries lie; a new run starts them afresh."""
        return self._job(job, self.render_fingerprint(job), "attempts")

    def ending_uri(self, job: Job, start: int, stop: int) -> str:
        """How a span's analysis ended, where it failed."""
        return storage.join(self.attempts_dir(job), f"ending-{start:08d}-{stop:08d}.json")

    def failed_uri(self, job: Job) -> str:
        """Why the job can't be finished; it exists once a part of it failed."""
        return storage.join(self.attempts_dir(job), "failed.json")

    def job_dir(self, job: Job) -> str:
        """Where all that was made for a job lies, whatever its settings and inputs were."""
        return storage.join(self.uri, "jobs", job.job_id)

    def render_dir(self, job: Job) -> str:
        """Where the job's chunks and its result lie."""
        return self._job(job, self.render_fingerprint(job), "")

    def landmarks_dir(self, job: Job) -> str:
        """Where the job's landmarks lie."""
        return self._job(job, self.landmarks_fingerprint(job), "")

    def analysis_dir(self, job: Job) -> str:
        """Where the analysis of the job's video lies, shared by all jobs of that video."""
        return self._analysis(job, "")

    def video_dir(self, digest: str) -> str:
        """Where all analyses of a video lie, whatever their settings."""
        return storage.join(self.uri, "analysis", digest)

    def speech_dir(self, digest: str) -> str:
        """Where all features of a speech lie, whatever their encoder."""
        return storage.join(self.uri, "speech", digest)

    def shots(self, job: Job, start: int, stop: int) -> list[tuple[int, int]] | None:
        """The span's shots as [start, stop) source frames, or None while it isn't analysed."""
        uri = self.span_uri(job, start, stop)
        if not storage.exists(uri):
            return None
        return [(int(first), int(last)) for first, last in load_json(uri)["shots"]]

    def published_shots(self, job: Job, start: int, stop: int) -> list[tuple[int, int]]:
        """The shots that a walk of this span has published so far, in order."""
        names = [uri.rpartition("/shot-")[2] for uri in storage.list_files(self._analysis(job, "")) if "/shot-" in uri]
        bounds = sorted((int(name[:8]), int(name[9:17])) for name in names)
        shots: list[tuple[int, int]] = []
        for shot in bounds:
            if shot[1] <= stop and shot[0] == (shots[-1][1] if shots else start):
                shots.append(shot)
        return shots

    def finish_span(self, job: Job, start: int, stop: int, shots: list[tuple[int, int]]) -> None:
        """Publish the list that marks a span as analysed."""
        save_json(self.span_uri(job, start, stop), {"shots": [list(shot) for shot in shots]})

    def finished(self, chunk: Chunk) -> Chunk | None:
        """The chunk as an earlier run finished it, or None."""
        uri = self.sidecar_uri(chunk)
        if not storage.exists(uri):
            return None
        return self._as_finished(Chunk.from_json(json.dumps(load_json(uri)["chunk"])), chunk.job)

    def finished_ranges(self, job: Job) -> set[tuple[int, int]]:
        """[start, stop) of all chunks that are done, by one look at the job's directory."""
        return {bounds for bounds, _ in self._sidecars(job)}

    def finished_chunks(self, job: Job) -> list[Chunk]:
        """All chunks that are done, in order."""
        uris = [uri for _, uri in sorted(self._sidecars(job))]
        with ThreadPoolExecutor(READS_AT_ONCE) as threads:
            records = list(threads.map(load_json, uris))
        return [self._as_finished(Chunk.from_json(json.dumps(record["chunk"])), job) for record in records]

    def finish_chunk(self, chunk: Chunk, digest: str) -> None:
        """Publish the sidecar that marks a chunk as done."""
        save_json(self.sidecar_uri(chunk), {"chunk": json.loads(chunk.to_json()), "sha256": digest})

    def _sidecars(self, job: Job) -> Sequence[tuple[tuple[int, int], str]]:
        names = ((SIDECAR.fullmatch(uri.rpartition("/")[2]), uri) for uri in storage.list_files(self.render_dir(job)))
        return [((int(match[1]), int(match[2])), uri) for match, uri in names if match]

    def _as_finished(self, chunk: Chunk, job: Job) -> Chunk:
        # Names may have moved since (another manifest row, another mount of the same work directory).
        moved = replace(chunk, job=job, attempt=0)
        return replace(
            moved,
            chunk_uri=self.chunk_uri(moved),
            analysis_uri=self.shot_uri(job, chunk.shot_start, chunk.shot_stop),
            landmarks_uri=self.landmarks_uri(moved) if chunk.landmarks_uri else "",
        )

    def _analysis(self, job: Job, name: str) -> str:
        return storage.join(self.video_dir(job.video_digest), self.analysis_fingerprint(job), name)

    def _job(self, job: Job, part: str, name: str) -> str:
        return storage.join(self.uri, "jobs", job.job_id, part, name)


def fingerprint(*parts: object) -> str:
    """Short digest of values and settings; a release of DreamHead counts as a change."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    text = json.dumps([__version__, plain], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_CHARS]


def settings_digest(settings: DubSettings) -> str:
    """Digest of the settings that shape a dub's frames, as the results carry it."""
    return fingerprint(settings.analysis, settings.landmarks, settings.render, settings.output)


def _range(chunk: Chunk) -> str:
    return f"{chunk.start:08d}-{chunk.stop:08d}"
