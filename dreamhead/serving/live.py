"""A job's video while it is rendered: fragmented MP4, written in a thread, read by one HTTP response."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError

from dreamhead.errors import DreamheadError
from dreamhead.media.join import join_as_they_come
from dreamhead.media.mime import mp4_header
from dreamhead.records import Chunk, Job
from dreamhead.serving.records import JobRecord
from dreamhead.stages.finalize import speech_of
from dreamhead.stages.prepare import with_digests
from dreamhead.stages.source import open_source
from dreamhead.stages.work import Work

logger = logging.getLogger(__name__)

BLOCKS_AHEAD = 64
"""Writes of the muxer, each a fragment or a part of one, that may wait for a slow client."""
GONE_S = 1.0
"""How often it is asked whether a reader that gets nothing is still there."""
LOOK_S = 0.2
"""How often a thread that waits looks whether it is still wanted."""


class StreamEndedError(DreamheadError):
    """The video can't be streamed to its end: its job failed or was cancelled, or nobody listens any more."""


class LiveVideo:
    """One job's stream. A thread joins chunks as they are published, and stops when the reader goes away.

    Args:
        watch: reads the job's record.
        poll_s: seconds between looks for the next chunk.
    """

    def __init__(self, job: Job, work: Work, watch: Callable[[], JobRecord], poll_s: float) -> None:
        self._job, self._work, self._watch, self._poll_s = job, work, watch, poll_s
        self._closed = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._blocks: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(BLOCKS_AHEAD)

    async def blocks(self, is_gone: Callable[[], Awaitable[bool]]) -> AsyncIterator[bytes]:
        """The file's bytes as they come, its header whole before the rest; raises what went wrong.

        `is_gone` tells whether the reader has gone away: it is asked while there is nothing to send, as nothing else
        would show it then.
        """
        thread = threading.Thread(target=self._run, name=f"stream-{self._job.job_id}", daemon=True)
        thread.start()
        try:
            head = b""
            while mp4_header(head) is None:
                if (block := await self._next(is_gone)) is None:
                    raise StreamEndedError("nobody listens")
                head += block
            yield head
            while (block := await self._next(is_gone)) is not None:
                yield block
        finally:
            self._closed.set()

    async def _next(self, is_gone: Callable[[], Awaitable[bool]]) -> bytes | None:
        coming = self._loop.create_task(self._blocks.get())
        try:
            while not (await asyncio.wait({coming}, timeout=GONE_S))[0]:
                if await is_gone():
                    return None
        finally:
            coming.cancel()
        if isinstance(block := coming.result(), Exception):
            raise block
        return block

    def write(self, data: bytes) -> int:
        """Hand data to the reader, and wait while it has enough; called by the muxer."""
        self._put(bytes(data))
        return len(data)

    def _run(self) -> None:
        try:
            self._join()
            self._put(None)
        except StreamEndedError as error:
            logger.info("job %s: %s", self._job.job_id, error)
            self._end_with(error)
        except Exception as error:  # noqa: BLE001  It is the reader's to raise.
            self._end_with(error)

    def _end_with(self, error: Exception) -> None:
        try:
            self._put(error)
        except StreamEndedError:
            logger.info("job %s: nobody listens", self._job.job_id)

    def _join(self) -> None:
        job = with_digests(self._job, self._work)
        source, settings = open_source(job, self._work), self._work.settings
        timeline = source.timeline
        chunks = self._chunks(job, timeline.frame_count)
        timed = ((self._work.chunk_uri(chunk), int(timeline.pts[chunk.start])) for chunk in chunks)
        join_as_they_come(
            timed,
            source.video,
            timeline,
            speech_of(job, source),
            self,
            settings.output,
        )

    def _chunks(self, job: Job, frames: int) -> Iterator[Chunk]:
        """The job's chunks in order, each once it is published."""
        start = 0
        while start < frames:
            record = self._watch()
            stops = dict(self._work.finished_ranges(job))
            if start not in stops:
                if record.is_over:
                    raise StreamEndedError(f"{record.state} before frame {start} of {frames} was rendered")
                self._wait()
            while start in stops:
                stop = stops[start]
                yield Chunk(job=job, start=start, stop=stop, shot_start=start, shot_stop=stop, analysis_uri="")
                start = stop

    def _wait(self) -> None:
        if self._closed.wait(self._poll_s):
            raise StreamEndedError("nobody listens")

    def _put(self, block: bytes | Exception | None) -> None:
        put = asyncio.run_coroutine_threadsafe(self._blocks.put(block), self._loop)
        while not self._closed.is_set():
            try:
                put.result(LOOK_S)
                return
            except FutureTimeoutError:
                continue
        put.cancel()
        raise StreamEndedError("nobody listens")
