"""Prepare sources on Ray: check them, leave out what is done, give the rest to a pool of processes."""

import atexit
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from dreamhead import storage
from dreamhead.cluster.actors import patiently
from dreamhead.cluster.flow import through_pool
from dreamhead.cluster.pools import Node, check_room
from dreamhead.cluster.preparation_progress import PreparationProgress
from dreamhead.cluster.session import cluster_nodes
from dreamhead.config import PoolSettings, PreparationSettings
from dreamhead.errors import DreamheadError, ManifestError
from dreamhead.stages.attempts import describe
from dreamhead.stages.preparation import ledger
from dreamhead.stages.preparation.ledger import Ledger, Row
from dreamhead.stages.preparation.source import Source
from dreamhead.stages.preparation.work import Networks, PrepareSource, source_fingerprint

CHECKS_AT_ONCE = 16

Batch = dict[str, NDArray[Any]]
Checked = tuple[Source, bool]


class PrepareSources:
    """One row with a source to one row on what became of it: Ray Data's callable class."""

    def __init__(self, settings: PreparationSettings, networks: Networks, output_uri: str) -> None:
        self._prepare = patiently(lambda: PrepareSource(settings, networks, output_uri))
        atexit.register(self._prepare.close)

    def __call__(self, batch: Batch) -> Iterator[dict[str, list[object]]]:
        for text in batch["source"]:
            source = Source.from_json(str(text))
            row = self._prepare(source)
            facts = {"name": source.name, "uri": source.uri, "status": row["status"], "error": row["error"]}
            yield {name: [value] for name, value in (facts | _counts(row)).items()}


class PreparationRun:
    """One run over many sources. Expects Ray to be there; the progress belongs to the caller."""

    def __init__(
        self, settings: PreparationSettings, networks: Networks, output_uri: str, progress: PreparationProgress
    ) -> None:
        self._settings = settings
        self._networks = networks
        self._digest = networks.digest()
        self._ledger = Ledger(output_uri)
        self._progress = progress

    def __call__(self, sources: Sequence[Source]) -> None:
        """Prepare every source that isn't, or say in the data set why not; raises ClusterError, ManifestError."""
        pool = plan_pool(self._settings.pool, cluster_nodes())
        refuse_other_splits(sources, self._ledger.rows())
        missing = self._check(sources)
        self._progress.plan(len(missing), len(sources))
        if missing:
            for facts in self._flow(missing, pool):
                self._progress.source(facts)

    def _check(self, sources: Sequence[Source]) -> list[Source]:
        """Look at all sources side by side; those that are there already, or can't be read, end here."""
        # In threads, not in Ray's tasks: it waits for storage, and a task's process first loads much else.
        with ThreadPoolExecutor(CHECKS_AT_ONCE) as threads:
            answers = list(threads.map(self._look, sources))
        readable = []
        for source, answer in zip(sources, answers, strict=True):
            if isinstance(answer, DreamheadError):
                self._fail(source, describe(answer))
            else:
                readable.append(answer)
        return self._without_doubles(readable)

    def _look(self, source: Source) -> Checked | DreamheadError:
        """The source with its content's digest, and whether it is prepared just so; why not, when it can't be read."""
        try:
            known = replace(source, digest=storage.content_digest(source.uri))
            is_done = self._ledger.done(known, source_fingerprint(known, self._settings, self._digest)) is not None
        except DreamheadError as error:
            return error
        if not is_done:
            # A new run starts the count of tries afresh.
            storage.delete(self._ledger.attempts_uri(known))
        return known, is_done

    def _without_doubles(self, checked: Sequence[Checked]) -> list[Source]:
        """The same stretch of the same content is prepared once: a model would see it twice as often as the rest."""
        first: dict[tuple[str, float, float | None], Source] = {}
        missing = []
        for source, is_done in checked:
            known = first.setdefault((source.digest, source.start_s, source.end_s), source)
            if known is not source:
                self._fail(source, f"InputError: {source.uri}: its content is that of {known.uri}")
            elif not is_done:
                missing.append(source)
        return missing

    def _fail(self, source: Source, error: str) -> None:
        self._ledger.fail(source, error)
        self._progress.source({"status": ledger.FAILED, "uri": source.uri, "error": error})

    def _flow(self, sources: Sequence[Source], pool: PoolSettings) -> Iterator[Row]:
        settings, items = self._settings, [{"source": source.to_json()} for source in sources]
        constructor = (settings, self._networks, self._ledger.uri)
        timeout_s = settings.no_progress_timeout_s
        yield from through_pool(items, PrepareSources, constructor, pool, settings.max_attempts, timeout_s)


def plan_pool(given: PoolSettings | None, nodes: Sequence[Node]) -> PoolSettings:
    """The pool as given, or a process for each CPU; raises ClusterError where the given one doesn't fit."""
    if given is None:
        size = max(1, sum(int(node.cpus) for node in nodes))
        return PoolSettings(min_size=size, max_size=size, num_cpus=min(1.0, sum(node.cpus for node in nodes)))
    return check_room(given, nodes)


def refuse_other_splits(sources: Sequence[Source], rows: Sequence[Row]) -> None:
    """Refuse to put a speaker into one split whom earlier runs put into the other; raises ManifestError."""
    again = {source.name for source in sources}
    there = {
        row["speaker"]: row["split"] for row in rows if row["kind"] == ledger.SOURCE and row["source"] not in again
    }
    for source in sources:
        if there.get(source.speaker, source.split) != source.split:
            raise ManifestError(
                f"speaker {source.speaker} is to be in {source.split}, but clips that earlier runs put into this data "
                f"set are in {there[source.speaker]}; prepare them all in one run, or into another folder"
            )


def _counts(row: Row) -> dict[str, float]:
    clips = row.get("clips", {})
    names = (ledger.SPOKEN, ledger.PICTURES, ledger.REJECTED)
    return {"seconds": row.get("seconds") or 0.0} | {name: clips.get(name, 0) for name in names}
