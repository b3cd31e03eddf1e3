"""Take a new job: files by uri, as JSON, or uploaded, as multipart/form-data."""

import hashlib
import json
import secrets
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool

from dreamhead import storage
from dreamhead.errors import InputError
from dreamhead.faces.tracking import FaceChoice
from dreamhead.scratch import scratch_folder
from dreamhead.serving.checkpoints import checkpoint_uri
from dreamhead.serving.jobs import NewJob, Submitted
from dreamhead.serving.probing import check_media
from dreamhead.serving.problems import ProblemError
from dreamhead.serving.records import Options
from dreamhead.serving.samples import SCHEME, Samples
from dreamhead.serving.schemas import DubRequest, JobView, ProblemView
from dreamhead.serving.service import Owner, Service, TheService
from dreamhead.serving.uploads import Upload, check_size, lively, receive

router = APIRouter()

MAX_JSON_BYTES = 1_000_000
MB = 1_000_000
ModelT = TypeVar("ModelT", bound=BaseModel)

OPTION_FIELDS = {
    name: {"type": "string", "description": field.description or ""} for name, field in Options.model_fields.items()
}
FORM_SCHEMA = {
    "type": "object",
    "required": ["video", "audio"],
    "properties": {
        "video": {"type": "string", "format": "binary", "description": "The video, or a still picture."},
        "audio": {"type": "string", "format": "binary", "description": "The new speech: any file with sound."},
        **OPTION_FIELDS,
    },
}
REQUEST_BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{DubRequest.__name__}"}},
        "multipart/form-data": {"schema": FORM_SCHEMA},
    },
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemView, "description": text}
    for status, text in {
        401: "No API key, or an unknown one.",
        408: "The upload stood still.",
        413: "The upload is too large.",
        415: "Neither JSON nor multipart/form-data.",
        422: "The request can't be dubbed; `detail` says why.",
        429: "Too many jobs wait or run; try again after `Retry-After` seconds.",
    }.items()
}


@router.post(
    "/v1/dubs",
    status_code=202,
    response_model=JobView,
    responses=PROBLEMS,
    openapi_extra={"requestBody": REQUEST_BODY},
)
async def submit(
    request: Request,
    response: Response,
    service: TheService,
    owner: Owner,
    idempotency_key: Annotated[str, Header(max_length=255)] = "",
) -> JobView:
    """Queue a dub. The same `Idempotency-Key` with the same request makes one job, however often it is sent."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        submitted = await _submit_uris(request, service, owner, idempotency_key)
    elif kind == "multipart/form-data":
        submitted = await _submit_upload(request, service, owner, idempotency_key)
    else:
        raise ProblemError(415, f"Content-Type {kind or 'missing'}; allowed: application/json, multipart/form-data")
    await service.wake()
    response.headers["Location"] = f"/v1/dubs/{submitted.record.id}"
    if submitted.is_replay:
        response.headers["Idempotency-Replayed"] = "true"
    return JobView.of(submitted.record)


async def _submit_uris(request: Request, service: Service, owner: str, key: str) -> Submitted:
    body = b""
    async for block in lively(request.stream(), service.settings.upload_idle_s):
        body += block
        check_size(len(body), MAX_JSON_BYTES)
    asked = _validated(DubRequest, _json("the body", body), "body")
    _check_options(service, asked)
    new = NewJob(
        owner=owner,
        video_uri=await run_in_threadpool(_readable, service, "video_uri", asked.video_uri),
        audio_uri=await run_in_threadpool(_readable, service, "audio_uri", asked.audio_uri),
        options=Options.model_validate(asked.model_dump(exclude={"video_uri", "audio_uri"})),
        content=_digest(asked.model_dump(mode="json")),
        idempotency_key=key,
    )
    return await run_in_threadpool(service.store.submit, new, service.limits)


def _check_options(service: Service, options: Options) -> None:
    """What can't be told from the options alone, or what old records needn't keep to."""
    FaceChoice.parse(options.face)
    checkpoint_uri(service.settings, options.checkpoint)
    if not options.webhook_url:
        return
    if service.webhooks is None:
        raise InputError("webhook_url: this service sends none")
    service.webhooks.check(options.webhook_url)


def _readable(service: Service, name: str, asked: str) -> str:
    if asked.startswith(SCHEME):
        return Samples(service.settings.samples).find(name, asked)
    uri = service.uris.check(name, asked)
    if not storage.exists(uri):
        raise InputError(f"{name}: {asked}: no such file")
    return uri


async def _submit_upload(request: Request, service: Service, owner: str, key: str) -> Submitted:
    max_bytes = service.settings.max_upload_mb * MB
    announced = request.headers.get("content-length", "")
    check_size(int(announced) if announced.isdecimal() else 0, max_bytes)
    if not await run_in_threadpool(service.store.knows_key, owner, key):
        # Before the upload, not after; one that may be a replay is let through.
        await run_in_threadpool(service.store.check_room, owner, service.limits)
    with scratch_folder() as folder:
        body = lively(request.stream(), service.settings.upload_idle_s)
        upload = await receive(body, request.headers["content-type"], folder, max_bytes)
        options = _options(upload.fields)
        _check_options(service, options)
        await check_media(upload.files, service.settings.max_duration_s, service.settings.probe_timeout_s)
        return await run_in_threadpool(_keep, upload, options, service, owner, key)


def _keep(upload: Upload, options: Options, service: Service, owner: str, key: str) -> Submitted:
    """Publish the files and queue their job; what no job needs is removed again."""
    upload_id = secrets.token_hex(16)
    uris = {name: service.store.upload_uri(upload_id, path.name) for name, path in upload.files.items()}
    new = NewJob(
        owner=owner,
        video_uri=uris["video"],
        audio_uri=uris["audio"],
        options=options,
        content=_digest([upload.digests, options.model_dump(mode="json")]),
        idempotency_key=key,
    )
    is_needed = False
    mark = service.store.incoming_uri(owner, upload_id)
    storage.write_bytes(mark, service.store.clock().isoformat().encode())
    try:
        for name, path in upload.files.items():
            storage.publish(path, uris[name])
        submitted = service.store.submit(new, service.limits)
        is_needed = submitted.record.video_uri == new.video_uri
    finally:
        if not is_needed:
            for uri in uris.values():
                storage.delete(uri)
        storage.delete(mark)
    return submitted


def _options(fields: dict[str, str]) -> Options:
    values: dict[str, Any] = dict(fields)
    if "segments" in values:
        values["segments"] = _json("segments", values["segments"].encode())
    return _validated(Options, values, "form")


def _validated(model: type[ModelT], values: Any, where: str) -> ModelT:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = error.errors(include_context=False, include_url=False, include_input=False)
        raise RequestValidationError([{**fault, "loc": (where, *fault["loc"])} for fault in faults]) from error


def _json(name: str, text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ProblemError(400, f"{name}: not valid JSON: {error}") from error


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
