"""What the page needs beside the jobs: its own files, the source, the curves, the samples; and who may have them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from dreamhead import storage
from dreamhead.serving.api import build_api
from dreamhead.serving.comparison import EXAMPLE_CURVES, CurvesView
from dreamhead.serving.jobs import JobStore
from dreamhead.serving.keys import ApiKeys, new_key
from dreamhead.serving.leases import Worker
from dreamhead.serving.page_files import FOLDER
from dreamhead.serving.records import Result
from dreamhead.serving.service import Service
from dreamhead.serving.settings import ServingSettings
from dreamhead.serving.stored_media import media_type
from dreamhead.serving.uris import AllowedUris
from dreamhead.stages.review.lips import LipCurves

CURVES = b'{"times_s": [0.0]}\n'


@dataclass
class Desk:
    """A client, and the store behind it."""

    client: TestClient
    store: JobStore

    def submit(self, video: str, audio: str, **headers: str) -> Any:
        """POST by uris."""
        return self.client.post("/v1/dubs", json={"video_uri": video, "audio_uri": audio}, headers=headers)

    def finish(self, job_id: str) -> None:
        """Be the worker that ends the job well, with curves."""
        held = Worker(self.store, "w", lease_s=60, max_claims=3).claim()
        assert held is not None
        uri = self.store.result_uri(job_id)
        storage.write_bytes(uri, b"video")
        result = Result(output_uri=uri, bytes=5, digest="abc", frames=1, dubbed_frames=1, passed_through={})
        storage.write_bytes(result.curve_uri, CURVES)
        held.succeed(result)


@pytest.fixture
def open_desk(tmp_path: Path, make_video: Callable[..., str], make_tone: Callable[..., str]) -> Callable[..., Desk]:
    """Makes a client of a service with two samples and, beside them, a secret."""
    (tmp_path / "samples" / "more").mkdir(parents=True)
    make_video("samples/clip.mp4", 10)
    make_tone("samples/speech.wav", 0.4)
    for name in ("samples/more/deep.mp4", "samples/.hidden.mp4", "samples/notes.txt", "secret.mp4"):
        (tmp_path / name).write_bytes(b"secret")

    def make(keys: ApiKeys | None = None, **values: Any) -> Desk:
        given = {"storage": str(tmp_path / "store"), "samples": str(tmp_path / "samples")} | values
        settings = ServingSettings(**given)
        store = JobStore(settings.storage)

        async def wake() -> None:
            pass

        async def missing() -> list[str]:
            return []

        app = build_api(Service(settings, store, AllowedUris(settings.allowed_prefixes), keys, wake, missing))
        return Desk(TestClient(app), store)

    return make


@pytest.fixture
def desk(open_desk: Callable[..., Desk]) -> Desk:
    return open_desk()


def detail(response: Any, status: int) -> str:
    """What an error says."""
    assert response.status_code == status, response.text
    return str(response.json()["detail"])


def test_the_page_comes_with_headers_that_let_nothing_else_in(desk: Desk) -> None:
    page = desk.client.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["content-security-policy"].split("; ")
    assert policy[:3] == ["default-src 'self'", "img-src 'self' blob:", "media-src 'self' blob:"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert (page.headers["cache-control"], page.headers["x-content-type-options"]) == ("no-cache", "nosniff")
    again = desk.client.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_each_part_of_the_page_has_its_kind(desk: Desk) -> None:
    kinds = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    parts = sorted(path.name for path in FOLDER.iterdir() if path.suffix != ".html")
    assert {"page.css", "page.js", "icon.svg"} <= set(parts)
    for name in parts:
        part = desk.client.get(f"/page/{name}")
        kind = part.headers["content-type"].partition(";")[0]
        assert (part.status_code, kind) == (200, kinds[Path(name).suffix]), name
        assert part.content == (FOLDER / name).read_bytes()


@pytest.mark.parametrize("name", ["index.html", "nothing.js", "..%2fapi.py", "%2e%2e%2fapi.py"])
def test_there_are_no_other_parts(desk: Desk, name: str) -> None:
    assert desk.client.get(f"/page/{name}", follow_redirects=False).status_code == 404


def test_no_part_of_the_page_names_another_host() -> None:
    for path in FOLDER.iterdir():
        # The name of SVG's vocabulary is no address.
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, path


def test_samples_are_listed_by_what_they_are_for(desk: Desk) -> None:
    assert desk.client.get("/v1/samples").json() == {"videos": ["clip.mp4"], "speeches": ["speech.wav"]}


def test_a_sample_is_dubbed_by_its_name(desk: Desk, tmp_path: Path) -> None:
    response = desk.submit("sample:clip.mp4", "sample:speech.wav")
    assert response.status_code == 202
    record = desk.store.read("everybody", response.json()["id"])
    samples = tmp_path / "samples"
    assert (record.video_uri, record.audio_uri) == (str(samples / "clip.mp4"), str(samples / "speech.wav"))


@pytest.mark.parametrize(
    "name", ["../secret.mp4", "more/deep.mp4", ".hidden.mp4", "/etc/passwd", "notes.txt", "speech.wav", ""]
)
def test_nothing_else_is_a_sample(desk: Desk, name: str) -> None:
    said = detail(desk.submit(f"sample:{name}", "sample:speech.wav"), 422)
    assert said == f"video_uri: there is no sample {name!r}; there are: clip.mp4"
    assert desk.store.active() == []


def test_a_service_without_samples_says_so(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(samples="")
    assert desk.client.get("/v1/samples").json() == {"videos": [], "speeches": []}
    assert detail(desk.submit("sample:a.mp4", "sample:a.wav"), 422).endswith("there are: none")


def test_a_sample_can_be_looked_at_by_ranges(desk: Desk, tmp_path: Path) -> None:
    content = (tmp_path / "samples" / "speech.wav").read_bytes()
    part = desk.client.get("/v1/samples/speech.wav", headers={"Range": "bytes=4-9"})
    assert (part.status_code, part.content, part.headers["content-type"]) == (206, content[4:10], "audio/wav")
    for name in ("notes.txt", ".hidden.mp4", "..%2fsecret.mp4"):
        assert desk.client.get(f"/v1/samples/{name}").status_code == 404


def test_the_source_comes_by_ranges_and_as_nothing_but_media(desk: Desk, tmp_path: Path) -> None:
    job = desk.submit("sample:clip.mp4", "sample:speech.wav").json()
    content = (tmp_path / "samples" / "clip.mp4").read_bytes()
    whole = desk.client.get(job["links"]["source"])
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, content, "video/mp4")
    assert whole.headers["content-security-policy"] == "default-src 'none'; sandbox"
    part = desk.client.get(job["links"]["source"], headers={"Range": "bytes=-7"})
    assert (part.status_code, part.content) == (206, content[-7:])
    again = desk.client.get(job["links"]["source"], headers={"If-None-Match": whole.headers["etag"]})
    assert again.status_code == 304
    head = desk.client.head(job["links"]["source"])
    assert (head.headers["content-type"], head.headers["content-length"]) == ("video/mp4", str(len(content)))
    (tmp_path / "samples" / "clip.mp4").unlink()
    assert detail(desk.client.get(job["links"]["source"]), 404) == "the source isn't there any more"


def test_curves_come_once_the_job_is_done(desk: Desk) -> None:
    job = desk.submit("sample:clip.mp4", "sample:speech.wav").json()
    assert detail(desk.client.get(job["links"]["curve"]), 409) == "the job is queued: there is no video yet"
    desk.finish(job["id"])
    curves = desk.client.get(job["links"]["curve"])
    assert (curves.status_code, curves.content, curves.headers["content-type"]) == (200, CURVES, "application/json")
    storage.delete(desk.store.result_uri(job["id"]).replace(".mp4", ".curve.json"))
    assert detail(desk.client.get(job["links"]["curve"]), 404) == "there are no curves of this job"


def test_with_keys_only_the_page_itself_is_open(open_desk: Callable[..., Desk]) -> None:
    anna, ben = new_key("anna"), new_key("ben")
    names = dict(reversed(key.line.split()) for key in (anna, ben))
    desk = open_desk(ApiKeys(names))
    assert desk.client.get("/").status_code == desk.client.get("/page/page.js").status_code == 200
    with_key, others = ({"Authorization": f"Bearer {key.key}"} for key in (anna, ben))
    job = desk.submit("sample:clip.mp4", "sample:speech.wav", **with_key).json()
    desk.finish(job["id"])
    for path in (job["links"]["source"], job["links"]["curve"]):
        answers = [desk.client.get(path, headers=headers).status_code for headers in ({}, others, with_key)]
        assert answers == [401, 404, 200], path
    for path in ("/v1/samples", "/v1/samples/clip.mp4"):
        assert [desk.client.get(path, headers=headers).status_code for headers in ({}, others)] == [401, 200], path


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x00\x00\x00\x20ftypqt  ", "video/mp4"),
        (b"\x00\x00\x00\x20ftypM4A ", "audio/mp4"),
        (b"\x1a\x45\xdf\xa3\x01\x00", "video/webm"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"<html><script>", "application/octet-stream"),
        (b"<svg xmlns=", "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)
def test_the_kind_of_a_file_is_read_from_its_first_bytes(tmp_path: Path, head: bytes, kind: str) -> None:
    (tmp_path / "file.html").write_bytes(head)
    assert media_type(str(tmp_path / "file.html")) == kind


def test_the_description_of_curves_is_what_the_stages_write() -> None:
    assert list(CurvesView.model_fields) == list(LipCurves.__dataclass_fields__)
    assert CurvesView(**EXAMPLE_CURVES).model_dump() == EXAMPLE_CURVES
