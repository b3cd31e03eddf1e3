"""What is shown beside a result to judge it: the source, and the curves of the lips."""

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from dreamhead import storage
from dreamhead.serving.problems import ProblemError
from dreamhead.serving.ranges import file_response
from dreamhead.serving.reading import NOT_YET, UNKNOWN, TheJob, finished_result
from dreamhead.serving.stored_media import media_response

EXAMPLE_CURVES: dict[str, Any] = {
    "times_s": [0.0, 0.04, 0.08],
    "duration_s": 0.12,
    "source_times_s": [0.0, 0.04, 0.08],
    "new": [0.02, 0.09, 0.17],
    "found": [None, 0.08, 0.16],
    "source": [0.05, 0.05, None],
    "level_db": [-52.5, -24.0, -18.1],
}

router = APIRouter()


class CurvesView(BaseModel):
    """The lips of a finished dub: a value a frame; openings are in eye distances, null where there is no face."""

    model_config = ConfigDict(use_attribute_docstrings=True, json_schema_extra={"examples": [EXAMPLE_CURVES]})

    times_s: list[float]
    """When the frame is shown, in seconds."""
    duration_s: float
    """When the last frame ends."""
    source_times_s: list[float]
    """When the source shows the frame that this one is made of: not in step where speech outlasts the source."""
    new: list[float | None]
    """Lip opening that the speech asked for."""
    found: list[float | None]
    """Lip opening measured on the result's pixels, in the stretches that were reviewed."""
    source: list[float | None]
    """Lip opening of the source."""
    level_db: list[float]
    """How loud the speech is, in dB of full scale."""


@router.get("/v1/dubs/{job_id}/source", response_class=Response, responses=UNKNOWN)
@router.head("/v1/dubs/{job_id}/source", include_in_schema=False)
def read_source(record: TheJob, request: Request) -> Response:
    """The job's own video or picture, whole or a range of it."""
    return media_response(request, record.video_uri, "the source")


@router.get("/v1/dubs/{job_id}/curve", response_model=CurvesView, responses=UNKNOWN | NOT_YET)
def read_curve(record: TheJob, request: Request) -> Response:
    """How far the lips open over time, new and in the source, and how loud the speech is."""
    result = finished_result(record)
    if not storage.exists(result.curve_uri):
        raise ProblemError(404, "there are no curves of this job")
    size = storage.size(result.curve_uri)
    return file_response(request, result.curve_uri, size, f"{result.digest}-curve", "application/json")
