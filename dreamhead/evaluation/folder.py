"""The layout of an evaluation's folder: what a run leaves for people, and what the next run needs.

results.json, results.parquet, report.html
videos/<clip>/<condition>.mp4           what was judged
pictures/<clip>/<condition>.jpg         source above, condition below
landmarks/<clip>/<condition>.npz        what was measured
work/verdicts/<clip>/<condition>.json   written last = done
work/sources/, work/speeches/, work/dub/, work/made/, work/attempts/
"""

from dreamhead import storage
from dreamhead.errors import StorageError
from dreamhead.evaluation.records import Task, Verdict
from dreamhead.evaluation.settings import EvaluationSettings
from dreamhead.stages.artefacts import load_json, save_json
from dreamhead.stages.work import fingerprint

METHOD = 2
"""Counts changes of what a figure means: verdicts of another number are judged again."""

NOT_JUDGING = {"conditions", "targets", "pool", "max_attempts", "no_progress_timeout_s"}
"""Settings that no verdict depends on."""


class EvaluationFolder:
    """Names of one evaluation's files for one set of settings and weights."""

    def __init__(self, uri: str, settings: EvaluationSettings, weights_digest: str) -> None:
        self.uri = uri
        self.sources_uri = storage.join(uri, "work", "sources")
        self.speeches_uri = storage.join(uri, "work", "speeches")
        self.dub_uri = storage.join(uri, "work", "dub")
        self._settings = settings.model_dump(mode="json", exclude=NOT_JUDGING)
        self._weights_digest = weights_digest

    def video_uri(self, task: Task) -> str:
        """The video of a condition."""
        return self._of(task, "videos", "mp4")

    def made_uri(self, task: Task) -> str:
        """The note of what that video was made from."""
        return self._of(task, "work/made", "json")

    def picture_uri(self, task: Task) -> str:
        """The strip of pictures."""
        return self._of(task, "pictures", "jpg")

    def arrays_uri(self, task: Task) -> str:
        """What was measured."""
        return self._of(task, "landmarks", "npz")

    def attempts_uri(self, task: Task) -> str:
        """The count of tries."""
        return self._of(task, "work/attempts", "json")

    def clear_attempts(self) -> None:
        """Tries are counted within a run: whoever starts one wants it tried again."""
        for uri in storage.list_files(storage.join(self.uri, "work", "attempts")):
            storage.delete(uri)

    def save(self, task: Task, verdict: Verdict) -> None:
        """Publish a verdict: the condition is done."""
        save_json(
            self._of(task, "work/verdicts", "json"), {"depends_on": self._digest(task), "verdict": verdict.to_json()}
        )

    def finished(self, task: Task) -> Verdict | None:
        """The verdict of an earlier run, unless something that it depends on has changed."""
        uri = self._of(task, "work/verdicts", "json")
        if not storage.exists(uri):
            return None
        stored = load_json(uri)
        try:
            is_same = stored["depends_on"] == self._digest(task)
        except StorageError:
            # An input that is gone is told as this clip's error, when it is tried.
            return None
        return Verdict.from_json(stored["verdict"]) if is_same else None

    def _digest(self, task: Task) -> str:
        uris = [task.clip.video_uri, task.clip.audio_uri]
        if task.other is not None and task.condition == "cross":
            uris.append(task.other.audio_uri)
        contents = [storage.content_digest(uri) for uri in uris]
        return fingerprint(METHOD, task.to_json(), contents, self._settings, self._weights_digest)

    def _of(self, task: Task, kind: str, suffix: str) -> str:
        return storage.join(self.uri, kind, task.clip.clip_id, f"{task.condition}.{suffix}")
