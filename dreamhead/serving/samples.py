"""Videos and speech to try the service with: the files of one directory, by their names."""

from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict

from dreamhead import storage
from dreamhead.errors import InputError
from dreamhead.serving.problems import ProblemError
from dreamhead.serving.schemas import ProblemView
from dreamhead.serving.service import Owner, TheService
from dreamhead.serving.stored_media import media_response

SCHEME = "sample:"
"""What stands before a sample's name in the place of a uri."""

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
)
SPEECH_SUFFIXES = frozenset((".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus"))
UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": ProblemView, "description": "There is no such sample."}}

router = APIRouter()


class SampleNames(BaseModel):
    """What there is to try."""

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        json_schema_extra={"examples": [{"videos": ["portrait.mp4"], "speeches": ["french.wav", "german.wav"]}]},
    )

    videos: list[str]
    """Names of videos and pictures; `sample:` and a name stands for a `video_uri`."""
    speeches: list[str]
    """Names of speech files; `sample:` and a name stands for an `audio_uri`."""


class Samples:
    """The media files right below one directory uri; an empty uri has none."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def names(self) -> SampleNames:
        """What is there now; raises StorageError."""
        names = self._names()
        videos, speeches = (
            [name for name in names if PurePosixPath(name).suffix.lower() in suffixes]
            for suffixes in (VIDEO_SUFFIXES, SPEECH_SUFFIXES)
        )
        return SampleNames(videos=videos, speeches=speeches)

    def find(self, field: str, asked: str) -> str:
        """The uri of the sample that a request's field names as `sample:NAME`; raises InputError, StorageError."""
        name, names = asked.removeprefix(SCHEME), self.names()
        known = names.videos if field == "video_uri" else names.speeches
        # A name is compared with those that were listed, and so never followed as a path.
        if name not in known:
            raise InputError(f"{field}: there is no sample {name!r}; there are: {', '.join(known) or 'none'}")
        return self.uri_of(name)

    def uri_of(self, name: str) -> str:
        """Where a sample that is listed lies."""
        return storage.join(self._uri, name)

    def _names(self) -> list[str]:
        files = storage.list_files(self._uri) if self._uri else []
        below = (uri.removeprefix(self._uri.rstrip("/") + "/") for uri in files)
        return [name for name in below if "/" not in name and not name.startswith(".")]


@router.get("/v1/samples")
def list_samples(service: TheService, owner: Owner) -> SampleNames:
    """Videos and speech of this service that may be dubbed as `sample:NAME`."""
    return Samples(service.settings.samples).names()


@router.get("/v1/samples/{name}", response_class=Response, responses=UNKNOWN)
@router.head("/v1/samples/{name}", include_in_schema=False)
def read_sample(
    service: TheService,
    owner: Owner,
    request: Request,
    name: Annotated[str, Path(examples=["portrait.mp4"], description="as listed")],
) -> Response:
    """One sample, whole or a range of it."""
    samples = Samples(service.settings.samples)
    names = samples.names()
    if name not in [*names.videos, *names.speeches]:
        raise ProblemError(404, f"there is no sample {name}; GET /v1/samples lists them")
    return media_response(request, samples.uri_of(name), f"the sample {name}")
