"""The HTTP interface over a store, without Ray and without workers: what it takes, refuses, shows and hides."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from dreamhead import storage
from dreamhead.serving.api import build_api
from dreamhead.serving.jobs import JobStore
from dreamhead.serving.keys import ApiKeys, new_key
from dreamhead.serving.leases import Worker
from dreamhead.serving.records import Failure, Progress, Result
from dreamhead.serving.schemas import EXAMPLE_JOB, EXAMPLE_REQUEST, DubRequest, JobView
from dreamhead.serving.service import Service
from dreamhead.serving.settings import ServingSettings
from dreamhead.serving.uris import AllowedUris
from dreamhead.serving.webhooks import Webhooks

UNKNOWN = "0" * 43


@dataclass
class Desk:
    """A client, and the store behind it."""

    client: TestClient
    store: JobStore
    inputs: Path
    missing: list[str] = field(default_factory=list)
    woken: int = 0

    def submit(self, **values: Any) -> Any:
        """POST by uris; two files that are there, unless others are given."""
        uris = {"video_uri": str(self.inputs / "clip.mp4"), "audio_uri": str(self.inputs / "speech.wav")}
        headers = values.pop("headers", {})
        return self.client.post("/v1/dubs", json=uris | values, headers=headers)

    def upload(self, **values: Any) -> Any:
        """POST the two files themselves."""
        files = {
            "video": ("my clip.mp4", (self.inputs / "clip.mp4").read_bytes(), "video/mp4"),
            "audio": ("speech.wav", (self.inputs / "speech.wav").read_bytes(), "audio/wav"),
        }
        headers = values.pop("headers", {})
        files |= values.pop("files", {})
        given = {name: file for name, file in files.items() if file is not None}
        return self.client.post("/v1/dubs", files=given, data=values, headers=headers)

    def finish(self, job_id: str, content: bytes = b"0123456789" * 100) -> None:
        """Be the worker that ends the job well."""
        held = Worker(self.store, "w", lease_s=60, max_claims=3).claim()
        assert held is not None
        assert held.record.id == job_id
        uri = self.store.result_uri(job_id)
        storage.write_bytes(uri, content)
        result = Result(
            output_uri=uri,
            bytes=len(content),
            digest=storage.content_digest(uri),
            frames=50,
            dubbed_frames=40,
            passed_through={"NO_FACE": 10},
            warnings="the last 0.60 s of the speech were cut",
        )
        held.succeed(result)


@pytest.fixture
def open_desk(tmp_path: Path, make_video: Callable[..., str], make_tone: Callable[..., str]) -> Callable[..., Desk]:
    """Makes a client of a service with these settings."""
    make_video("clip.mp4", 10)
    make_tone("speech.wav", 0.4)

    def make(keys: ApiKeys | None = None, webhooks: Webhooks | None = None, **values: Any) -> Desk:
        settings = ServingSettings(
            **{"storage": str(tmp_path / "store"), "allowed_prefixes": [str(tmp_path)], "poll_s": 0.01} | values
        )
        store = JobStore(settings.storage)

        async def wake() -> None:
            desk.woken += 1

        async def missing() -> list[str]:
            return desk.missing

        uris = AllowedUris(settings.allowed_prefixes)
        app = build_api(Service(settings, store, uris, keys, wake, missing, webhooks))
        desk = Desk(TestClient(app), store, tmp_path)
        return desk

    return make


@pytest.fixture
def desk(open_desk: Callable[..., Desk]) -> Desk:
    return open_desk()


def problem(response: Any, status: int) -> str:
    """The detail of an error that is as RFC 9457 has it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (body["status"], set(body)) == (status, {"type", "title", "status", "detail"})
    return str(body["detail"])


def test_a_job_by_uris_is_taken_with_its_options(desk: Desk) -> None:
    response = desk.submit(seed=7, segments=[{"start_s": 0, "end_s": 0.2}], face="point:20,30@0", language="fr")
    assert response.status_code == 202
    job = response.json()
    assert response.headers["Location"] == f"/v1/dubs/{job['id']}" == job["links"]["self"]
    assert (job["status"], job["progress"]["frames"], job["error"]) == ("queued", 0, None)
    assert desk.client.get(response.headers["Location"]).json() == job
    record = desk.store.read("everybody", job["id"])
    assert (record.video_uri, record.audio_uri) == (str(desk.inputs / "clip.mp4"), str(desk.inputs / "speech.wav"))
    options = record.options
    assert (options.seed, options.face, options.language) == (7, "point:20,30@0", "fr")
    assert [(part.start_s, part.end_s) for part in options.segments] == [(0, 0.2)]
    assert desk.woken == 1


def test_an_upload_is_kept_to_the_byte(desk: Desk) -> None:
    response = desk.upload(seed="7", segments='[{"start_s": 0, "end_s": 0.2}]', on_longer_audio="freeze")
    assert response.status_code == 202, response.text
    record = desk.store.read("everybody", response.json()["id"])
    assert storage.read_bytes(record.video_uri) == (desk.inputs / "clip.mp4").read_bytes()
    assert storage.read_bytes(record.audio_uri) == (desk.inputs / "speech.wav").read_bytes()
    assert record.video_uri.startswith(f"{desk.store.uri}/uploads/")
    assert (record.options.seed, record.options.on_longer_audio, len(record.options.segments)) == (7, "freeze", 1)


@pytest.mark.parametrize(
    ("values", "detail"),
    [
        ({"seed": -1}, "body.seed: Input should be greater than or equal to 0"),
        ({"face": "biggest"}, "face: 'biggest' is not allowed; use largest, point:x,y@seconds or box:x0,y0,x1,y1@"),
        ({"face": "point:-5,5@0"}, "face: 'point:-5,5@0' is not allowed"),
        ({"on_longer_audio": "loop"}, "body.on_longer_audio: Input should be 'error', 'trim', 'freeze' or 'pingpong'"),
        ({"segments": [{"start_s": 2, "end_s": 1}]}, "end_s 1 must be after start_s 2"),
        ({"output_uri": "x.mp4"}, "body.output_uri: Extra inputs are not permitted"),
        ({"video_uri": ""}, "body.video_uri: String should have at least 1 character"),
        ({"video_uri": "/etc/passwd"}, "video_uri: /etc/passwd isn't below an allowed directory; allowed: /"),
        ({"audio_uri": "http://169.254.169.254/latest"}, "audio_uri: http://169.254.169.254/latest: unknown scheme"),
    ],
)
def test_a_bad_request_is_refused_with_the_reason(desk: Desk, values: dict[str, Any], detail: str) -> None:
    assert detail in problem(desk.submit(**values), 422)
    assert desk.store.active() == []


def test_a_file_that_isnt_there_is_refused(desk: Desk) -> None:
    detail = problem(desk.submit(video_uri=str(desk.inputs / "gone.mp4")), 422)
    assert detail.endswith("gone.mp4: no such file")


def test_without_allowed_directories_files_are_uploaded(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(allowed_prefixes=[])
    assert problem(desk.submit(), 422).startswith("video_uri: this service reads no uris: upload the files")
    assert desk.upload().status_code == 202


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"files": {"video": ("a.mp4", b"no video", "video/mp4")}}, "video: the upload: can't be opened as media"),
        ({"files": {"video": ("a.m3u8", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "video/mp4")}}, "can't be opened"),
        ({"files": {"audio": ("a.wav", b"", "audio/wav")}}, "audio: the upload: can't be opened as media"),
        ({"files": {"audio": None}}, "audio: is required; the form has two files"),
        ({"seed": "many"}, "form.seed: Input should be a valid integer"),
        ({"colour": "red"}, "form.colour: Extra inputs are not permitted"),
        ({"language": "x" * 200_000}, "language: is too long for a field"),
    ],
)
def test_a_bad_upload_is_refused_and_nothing_kept(desk: Desk, change: dict[str, Any], detail: str) -> None:
    assert detail in problem(desk.upload(**change), 422)
    assert storage.list_files(desk.store.uri) == []


def test_an_upload_of_speech_without_sound_is_refused(desk: Desk) -> None:
    silent = ("clip.mp4", (desk.inputs / "clip.mp4").read_bytes(), "video/mp4")
    assert problem(desk.upload(files={"audio": silent}), 422) == "audio: the upload: holds no sound"
    speech = ("speech.wav", (desk.inputs / "speech.wav").read_bytes(), "audio/wav")
    assert problem(desk.upload(files={"video": speech}), 422) == "video: the upload: holds no picture"


def test_what_is_too_large_or_too_long_is_refused(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(max_upload_mb=1)
    large = ("a.mp4", bytes(1_100_000), "video/mp4")
    assert problem(desk.upload(files={"video": large}), 413) == "the request is larger than the 1 MB that are allowed"
    desk = open_desk(max_duration_s=0.3)
    assert problem(desk.upload(), 422) == "video: lasts 0.4 s; at most 0.3 s are allowed"


def test_a_body_without_an_announced_length_is_cut_off(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(max_upload_mb=1)

    def endless() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="video"; filename="a"\r\n\r\n'
        for _ in range(100):
            yield bytes(100_000)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert "larger than the 1 MB" in problem(desk.client.post("/v1/dubs", content=endless(), headers=headers), 413)
    long = {"Content-Type": "application/json"}
    assert "larger than" in problem(desk.client.post("/v1/dubs", content=b" " * 1_000_001, headers=long), 413)


@pytest.mark.parametrize(
    ("body", "kind", "status", "detail"),
    [
        (b"x", "text/plain", 415, "Content-Type text/plain; allowed: application/json, multipart/form-data"),
        (b"{", "application/json", 400, "the body: not valid JSON"),
        (b"[]", "application/json", 422, "body: Input should be a valid dictionary"),
        (b"x", "multipart/form-data", 422, "without a boundary"),
        (b"--c\r\n", "multipart/form-data; boundary=b", 422, "isn't valid multipart/form-data"),
    ],
)
def test_a_body_of_the_wrong_kind_is_refused(desk: Desk, body: bytes, kind: str, status: int, detail: str) -> None:
    response = desk.client.post("/v1/dubs", content=body, headers={"Content-Type": kind})
    assert detail in problem(response, status)


def test_the_same_idempotency_key_makes_one_job(desk: Desk) -> None:
    headers = {"Idempotency-Key": "order 66"}
    first, again = (desk.submit(headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "used with another request" in problem(desk.submit(headers=headers, seed=1), 422)


def test_the_same_upload_with_the_same_key_is_kept_once(desk: Desk) -> None:
    headers = {"Idempotency-Key": "order 66"}
    first = desk.upload(headers=headers)
    kept = storage.list_files(f"{desk.store.uri}/uploads")
    again = desk.upload(headers=headers)
    assert first.json() == again.json()
    assert storage.list_files(f"{desk.store.uri}/uploads") == kept
    assert len(kept) == 2
    speech = ("speech.wav", b"RIFF", "audio/wav")
    problem(desk.upload(headers=headers, files={"audio": speech}), 422)
    assert storage.list_files(f"{desk.store.uri}/uploads") == kept


def test_full_queues_say_when_to_come_back(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(max_active_jobs_per_key=1, retry_after_s=9)
    assert desk.submit().status_code == 202
    for response in (desk.submit(), desk.upload()):
        assert "1 of your jobs are waiting or running" in problem(response, 429)
        assert response.headers["Retry-After"] == "9"
    assert storage.list_files(f"{desk.store.uri}/uploads") == []


def test_jobs_are_listed_in_pages(desk: Desk) -> None:
    ids = [desk.submit().json()["id"] for _ in range(3)]
    ids.sort()
    first = desk.client.get("/v1/dubs", params={"limit": 2}).json()
    assert [job["id"] for job in first["jobs"]] == ids[:2]
    second = desk.client.get("/v1/dubs", params={"limit": 2, "after": first["next"]}).json()
    assert ([job["id"] for job in second["jobs"]], second["next"]) == (ids[2:], None)
    assert "after: must be" in problem(desk.client.get("/v1/dubs", params={"after": "../x"}), 422)
    assert "query.limit" in problem(desk.client.get("/v1/dubs", params={"limit": 0}), 422)


def test_a_job_that_isnt_there_is_not_found(desk: Desk) -> None:
    for path in (f"/v1/dubs/{UNKNOWN}", f"/v1/dubs/{UNKNOWN}/video", f"/v1/dubs/{UNKNOWN}/events", "/v1/dubs/.."):
        response = desk.client.get(path)
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"
    assert "there is no job" in problem(desk.client.delete(f"/v1/dubs/{UNKNOWN}"), 404)


def test_a_waiting_job_is_cancelled(desk: Desk) -> None:
    path = desk.submit().headers["Location"]
    response = desk.client.delete(path)
    assert (response.status_code, response.json()["status"]) == (202, "cancelled")
    assert desk.client.get(path).json()["status"] == "cancelled"
    assert problem(desk.client.get(f"{path}/video"), 409) == "the job is cancelled: there is no video"


def test_a_failed_job_says_why(desk: Desk) -> None:
    path = desk.submit().headers["Location"]
    held = Worker(desk.store, "w", lease_s=60, max_claims=3).claim()
    assert held is not None
    held.fail(Failure(type="NoFaceError", detail="no usable face"))
    job = desk.client.get(path).json()
    assert (job["status"], job["error"]) == ("failed", {"type": "NoFaceError", "detail": "no usable face"})


def test_events_follow_a_job_to_its_end(desk: Desk) -> None:
    path = desk.submit().headers["Location"]
    worker = Worker(desk.store, "w", lease_s=60, max_claims=3)
    steps = iter(["claim", "renew", "succeed"])
    held: Any = None
    seen: list[dict[str, Any]] = []
    ids: list[str] = []

    def act(step: str | None) -> None:
        nonlocal held
        if step == "claim":
            held = worker.claim()
        elif step == "renew":
            held.renew(Progress(frames_done=20, frames=50, eta_s=1.5))
        elif step == "succeed":
            held.release()
            desk.finish(held.record.id)

    # The client reads what the server sends only at the end of the answer, so what happens is told by its own looks.
    read = desk.store.read

    def read_and_act(owner: str, job_id: str) -> Any:
        record = read(owner, job_id)
        act(next(steps, None))
        return record

    desk.store.read = read_and_act  # type: ignore[method-assign]
    with desk.client.stream("GET", f"{path}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if name == "data":
                seen.append(json.loads(value))
            if name == "id":
                ids.append(value)
    assert [(job["status"], job["progress"]["frames_done"]) for job in seen] == [
        ("queued", 0),
        ("running", 0),
        ("running", 20),
        ("succeeded", 50),
    ]
    with desk.client.stream("GET", f"{path}/events", headers={"Last-Event-ID": ids[-1]}) as response:
        assert "data" not in response.read().decode()


def test_a_video_is_fetched_whole_and_in_ranges(desk: Desk) -> None:
    path = desk.submit().headers["Location"]
    response = desk.client.get(f"{path}/video")
    assert problem(response, 409) == "the job is queued: there is no video yet"
    assert response.headers["Retry-After"] == "5"
    content = b"0123456789" * 100
    desk.finish(path.rpartition("/")[2], content)
    job = desk.client.get(path).json()
    assert (job["status"], job["dubbed_frames"], job["passed_through"]) == ("succeeded", 40, {"NO_FACE": 10})
    assert job["warnings"] == "the last 0.60 s of the speech were cut"

    whole = desk.client.get(f"{path}/video")
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, content, "video/mp4")
    assert (whole.headers["accept-ranges"], whole.headers["content-length"]) == ("bytes", "1000")
    head = desk.client.head(f"{path}/video")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "1000")
    etag = whole.headers["etag"]
    assert desk.client.get(f"{path}/video", headers={"If-None-Match": f'"x", {etag}'}).status_code == 304

    def part(header: str, **more: str) -> Any:
        return desk.client.get(f"{path}/video", headers={"Range": header} | more)

    for header, start, stop in [("bytes=10-19", 10, 20), ("bytes=990-", 990, 1000), ("bytes=-5", 995, 1000)]:
        answer = part(header)
        assert (answer.status_code, answer.content) == (206, content[start:stop])
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/1000"
    assert part("bytes=0-9", **{"If-Range": etag}).status_code == 206
    for ignored in (part("bytes=0-9", **{"If-Range": '"old"'}), part("bytes=5-2"), part("lines=1-2"), part("bytes=-")):
        assert (ignored.status_code, ignored.content) == (200, content)
    beyond = part("bytes=1000-")
    assert problem(beyond, 416) == "the file has 1000 bytes"
    assert beyond.headers["content-range"] == "bytes */1000"


def test_keys_keep_people_out_and_apart(open_desk: Callable[..., Desk]) -> None:
    anna, bert = new_key("anna"), new_key("bert")
    desk = open_desk(ApiKeys.load("", {"DREAMHEAD_API_KEYS": f"{anna.line},{bert.line}"}))
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {anna.key}"}):
        response = desk.submit(headers=headers)
        problem(response, 401)
        assert response.headers["WWW-Authenticate"] == "Bearer"
    as_anna, as_bert = ({"Authorization": f"Bearer {key.key}"} for key in (anna, bert))
    response = desk.submit(headers=as_anna)
    assert response.status_code == 202
    path = response.headers["Location"]
    assert desk.client.get(path, headers=as_anna).status_code == 200
    for method, tail in [("GET", ""), ("GET", "/video"), ("GET", "/events"), ("DELETE", "")]:
        assert "there is no job" in problem(desk.client.request(method, path + tail, headers=as_bert), 404)
        problem(desk.client.request(method, path + tail), 401)
    assert desk.client.get("/v1/dubs", headers=as_bert).json()["jobs"] == []
    assert len(desk.client.get("/v1/dubs", headers=as_anna).json()["jobs"]) == 1
    assert desk.client.get("/healthz").status_code == 200


def test_a_webhook_is_asked_for_where_the_service_sends_some(open_desk: Callable[..., Desk]) -> None:
    url = "https://hooks.example.com/done"
    desk = open_desk()
    for ask in (desk.submit, desk.upload):
        assert problem(ask(webhook_url=url), 422) == "webhook_url: this service sends none"
    settings = ServingSettings(webhook_hosts=("hooks.example.com",))
    desk = open_desk(webhooks=Webhooks(settings, [b"k" * 32]))
    for ask in (desk.submit, desk.upload):
        assert "isn't a host that this service may post to" in problem(ask(webhook_url="https://10.0.0.1/"), 422)
        job_id = ask(webhook_url=url).json()["id"]
        assert desk.store.read("everybody", job_id).options.webhook_url == url
        assert storage.exists(desk.store.webhook_uri(job_id))


def test_a_finished_job_is_purged_at_once(desk: Desk) -> None:
    path = desk.upload(headers={"Idempotency-Key": "order 66"}).headers["Location"]
    assert problem(desk.client.delete(f"{path}?purge=true"), 409) == "the job is queued: cancel it first"
    desk.finish(path.rpartition("/")[2])
    assert desk.client.delete(path).json()["status"] == "succeeded"
    assert desk.client.get(f"{path}/video").status_code == 200
    assert (desk.client.delete(f"{path}?purge=true").status_code, desk.client.get(path).status_code) == (202, 404)
    left = [uri for uri in storage.list_files(desk.store.uri) if not uri.endswith("/.lock")]
    assert [uri.split("/")[-2] for uri in left] == ["purges"]


def test_a_kept_upload_leaves_no_mark(desk: Desk) -> None:
    desk.upload()
    assert len(storage.list_files(f"{desk.store.uri}/uploads")) == 2
    assert storage.list_files(f"{desk.store.uri}/incoming") == []


def test_health_says_what_is_missing(desk: Desk) -> None:
    assert desk.client.get("/healthz").json() == {"status": "ok"}
    desk.missing = ["Render", "Landmarks"]
    assert problem(desk.client.get("/healthz"), 503) == "not ready: Render, Landmarks"


def test_broken_storage_is_told_without_its_name(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> None:
        raise storage.StorageError("s3://secret-bucket/jobs: can't list")

    monkeypatch.setattr(JobStore, "page", fails)
    response = desk.client.get("/v1/dubs")
    assert problem(response, 503) == "the storage can't be reached: try again"
    assert response.headers["Retry-After"] == "15"


def test_the_description_is_whole_and_its_examples_are_true(desk: Desk) -> None:
    described = desk.client.get("/openapi.json").json()
    body = described["paths"]["/v1/dubs"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    schemas = described["components"]["schemas"]
    references = {text.rpartition("/")[2] for text in json.dumps(described).split('"') if text.startswith("#/")}
    assert references - {"HTTPValidationError", "ValidationError"} <= set(schemas)
    assert schemas["DubRequest"]["examples"] == [EXAMPLE_REQUEST]
    assert schemas["DubRequest"]["properties"]["seed"]["description"] == "The same seed gives the same pictures."
    DubRequest.model_validate(EXAMPLE_REQUEST)
    assert JobView.model_validate(EXAMPLE_JOB).model_dump(mode="json") == EXAMPLE_JOB
    assert "/openapi.json" in desk.client.get("/docs").text


def test_a_job_that_waits_has_nothing_to_stream_yet(desk: Desk) -> None:
    response = desk.client.get(f"/v1/dubs/{desk.submit().json()['id']}/stream")
    assert problem(response, 409) == "the job is queued: there is nothing to stream yet"
    assert response.headers["retry-after"] == "1"


def test_other_weights_must_be_among_the_services(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(checkpoints={"anime": "/weights/anime", "film": "/weights/film"})
    assert desk.submit(checkpoint="film").status_code == 202
    refused = "checkpoint: there is no 'studio'; allowed: anime, film"
    assert problem(desk.submit(checkpoint="studio"), 422) == refused
    assert problem(desk.upload(checkpoint="studio"), 422) == refused
    without = "checkpoint: there is no 'film'; allowed: none but the service's own, without a name"
    assert problem(open_desk().submit(checkpoint="film"), 422) == without
