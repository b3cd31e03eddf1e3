"""A Render that hangs over a chunk where a test wishes so: a flag in the work directory, which it takes away."""

import time

from dreamhead import storage
from dreamhead.records import Chunk
from dreamhead.serving import deployments
from dreamhead.serving.deployments import StageReplica
from dreamhead.serving.settings import ServingSettings
from dreamhead.stages.render import RenderChunk


def hang_once(settings: ServingSettings) -> None:
    """Let the next chunk hang."""
    storage.write_bytes(_flag(settings.work_uri), b"")


def _flag(work_uri: str) -> str:
    return storage.join(work_uri, "hang")


class RenderOrHang(RenderChunk):
    """The stage; the hang is within its counted and limited tries, as one in a decoder or a driver would be."""

    def _publish(self, chunk: Chunk) -> Chunk:
        flag = _flag(self._work.uri)
        if storage.exists(flag):
            storage.delete(flag)
            time.sleep(10_000)
        return super()._publish(chunk)


class Render(deployments.Render):
    """The deployment of that stage."""

    def __init__(self, settings: ServingSettings) -> None:
        StageReplica.__init__(self, RenderOrHang, settings)
