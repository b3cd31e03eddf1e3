"""The whole service on Ray Serve: the batch job's output, also where replicas or all of Serve die in the middle."""

import io
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import pytest
import ray
import requests
import yaml
from ray import serve
from ray.serve.schema import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatus,
    DeploymentStatusOverview,
    DeploymentStatusTrigger,
    ReplicaState,
    ServeDeploySchema,
)

from dreamhead import cli
from dreamhead.serving import app as app_module
from dreamhead.serving.app import build
from dreamhead.serving.ingress import missing_parts
from dreamhead.serving.settings import ServingSettings
from tests.serving.faulty import Render, hang_once
from tests.tiny import tiny_checkpoint

Studio = Any  # The fixture's own class; conftest modules can't be imported.

CONFIG = Path(__file__).parents[2] / "serve_config.yaml"
NAMES = {"Api", "Dubber", "Analyse", "Landmarks", "Render"}
DEADLINE_S = 120
TRY_S = 20.0
# The clip forth and back: long enough to be interrupted.
TIMES = 6

pytestmark = pytest.mark.ray


class Online:
    """One service on Serve, and a client of it."""

    def __init__(self, settings: ServingSettings) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        self.settings = settings
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """Start Serve and the service, and wait until all is up."""
        serve.start(http_options={"host": "127.0.0.1", "port": self._port})
        serve.run(build(self.settings), name="dreamhead", route_prefix="/")

    def ask(self, method: str, path: str, **values: Any) -> requests.Response:
        """One request."""
        return requests.request(method, f"{self.url}{path}", timeout=60, **values)

    def submit(self, studio: Studio, **values: str) -> str:
        """Upload the studio's clip and speech; returns the job's path."""
        with open(studio.video_uri, "rb") as video, open(studio.audio_uri, "rb") as audio:  # noqa: PTH123
            response = self.ask("POST", "/v1/dubs", files={"video": video, "audio": audio}, data=values)
        assert response.status_code == 202, response.text
        return str(response.headers["Location"])

    def until(self, path: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The job, once it is as wished."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            job: dict[str, Any] = self.ask("GET", path).json()
            if condition(job):
                return job
            time.sleep(0.05)
        raise AssertionError(f"it didn't come about within {DEADLINE_S} s: {job}")

    def until_health(self, status: int) -> str:
        """What `/healthz` says, once it has this status."""
        end = time.monotonic() + DEADLINE_S
        while (response := self.ask("GET", "/healthz")).status_code != status and time.monotonic() < end:
            time.sleep(0.05)
        assert response.status_code == status
        return response.text

    def kill(self, *names: str) -> None:
        """Kill replicas as a crash would."""
        for actor in ray.util.list_named_actors(all_namespaces=True):
            if any(actor["name"].startswith(f"SERVE_REPLICA::dreamhead#{name}#") for name in names):
                ray.kill(ray.get_actor(actor["name"], namespace=actor["namespace"]), no_restart=True)


@pytest.fixture(scope="module")
def online(
    studio_of: Callable[..., Studio], tmp_path_factory: pytest.TempPathFactory, ray_session: None
) -> Iterator[tuple[Online, Studio]]:
    """The service with tiny weights, and a clip of a few seconds."""
    folder = tmp_path_factory.mktemp("online")
    studio = studio_of(folder, times=TIMES, checkpoints={"other": str(tiny_checkpoint(folder / "other", seed=1))})
    # Long enough for a chunk on a busy machine, and for whoever waits for it.
    pools = studio.settings.dub.pools.model_copy(update={"chunk_timeout_s": TRY_S})
    dub = studio.settings.dub.model_copy(update={"pools": pools})
    studio.settings = studio.settings.model_copy(update={"dub": dub})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app_module, "Render", Render)
        yield Online(studio.settings), studio
        serve.shutdown()


def middle(job: dict[str, Any]) -> bool:
    """Whether some of it is rendered, and some isn't."""
    progress = job["progress"]
    assert job["status"] in ("queued", "running"), f"it was over before anything was killed: {job}"
    return 0 < progress["frames_done"] < progress["frames"]


def is_over(job: dict[str, Any]) -> bool:
    return job["status"] in ("succeeded", "failed", "cancelled")


@pytest.fixture(scope="module")
def expected(online: tuple[Online, Studio]) -> bytes:
    """What `dreamhead dub` makes of the clip."""
    return bytes(online[1].dub_directly("direct"))


def test_an_upload_becomes_the_batch_jobs_output(online: tuple[Online, Studio], expected: bytes) -> None:
    service, studio = online
    assert service.ask("GET", "/healthz").json() == {"status": "ok"}
    path = service.submit(studio)
    job = service.until(path, is_over)
    assert (job["status"], job["error"]) == ("succeeded", None)
    video = service.ask("GET", f"{path}/video")
    assert (video.status_code, video.content) == (200, expected)
    part = service.ask("GET", f"{path}/video", headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, expected[100:200])
    events = service.ask("GET", f"{path}/events")
    assert (events.headers["content-type"].split(";")[0], '"succeeded"' in events.text) == ("text/event-stream", True)
    assert service.ask("GET", "/docs").status_code == 200


def test_a_running_job_is_streamed(online: tuple[Online, Studio]) -> None:
    service, studio = online
    path = service.submit(studio)
    service.until(path, middle)
    with service.ask("GET", f"{path}/stream", stream=True) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith('video/mp4; codecs="avc1.')
        blocks = response.iter_content(None)
        first = next(blocks)
        assert first[4:8] == b"ftyp"
        assert not is_over(service.ask("GET", path).json())
        whole = first + b"".join(blocks)
    with av.open(io.BytesIO(whole)) as container:
        assert sum(1 for _ in container.decode(video=0)) == TIMES * 24
    assert service.until(path, is_over)["status"] == "succeeded"


def test_other_weights_are_loaded_where_a_request_names_them(online: tuple[Online, Studio], expected: bytes) -> None:
    service, studio = online
    ours, others = service.submit(studio), service.submit(studio, checkpoint="other")
    assert [service.until(path, is_over)["error"] for path in (ours, others)] == [None, None]
    wanted = bytes(studio.dub_directly("directly-other", "other"))
    assert wanted != expected
    assert service.ask("GET", f"{others}/video").content == wanted
    assert service.ask("GET", f"{ours}/video").content == expected


def test_the_command_line_gets_the_same(
    online: tuple[Online, Studio], expected: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service, studio = online
    output = tmp_path / "dubbed.mp4"
    argv = ["client", "submit", studio.video_uri, studio.audio_uri, "-o", str(output), "--server", service.url]
    assert cli.main(argv) == 0
    assert output.read_bytes() == expected
    assert capsys.readouterr().err.splitlines()[-1].startswith("succeeded, ")


def test_a_render_replica_that_dies_costs_nothing_but_time(online: tuple[Online, Studio], expected: bytes) -> None:
    service, studio = online
    path = service.submit(studio)
    service.until(path, middle)
    service.kill("Render")
    assert "not ready: Render" in service.until_health(503)
    job = service.until(path, is_over)
    assert (job["status"], job["error"]) == ("succeeded", None)
    assert service.ask("GET", f"{path}/video").content == expected
    assert "ok" in service.until_health(200)


def test_a_render_replica_that_hangs_is_ended_and_costs_nothing_but_time(
    online: tuple[Online, Studio], expected: bytes
) -> None:
    service, studio = online
    hang_once(studio.settings)
    began = time.monotonic()
    path = service.submit(studio)
    job = service.until(path, is_over)
    assert (job["status"], job["error"]) == ("succeeded", None)
    assert time.monotonic() - began > TRY_S
    assert service.ask("GET", f"{path}/video").content == expected


def test_a_job_outlives_all_of_serve(online: tuple[Online, Studio], expected: bytes) -> None:
    service, studio = online
    path = service.submit(studio)
    before = service.until(path, middle)
    service.kill(*NAMES)
    serve.shutdown()
    service.start()
    assert not is_over(service.ask("GET", path).json())
    job = service.until(path, is_over)
    assert (job["status"], job["error"]) == ("succeeded", None)
    assert job["progress"]["frames_done"] > before["progress"]["frames_done"]
    assert service.ask("GET", f"{path}/video").content == expected


def test_a_running_job_is_cancelled(online: tuple[Online, Studio]) -> None:
    service, studio = online
    path = service.submit(studio)
    service.until(path, middle)
    assert service.ask("DELETE", path).status_code == 202
    assert service.until(path, is_over)["status"] == "cancelled"
    assert service.ask("GET", f"{path}/video").status_code == 409


def test_what_was_scaled_to_nothing_isnt_missing() -> None:
    def part(status: DeploymentStatus, **states: int) -> DeploymentStatusOverview:
        return DeploymentStatusOverview(
            status=status,
            status_trigger=DeploymentStatusTrigger.UNSPECIFIED,
            replica_states={ReplicaState[name]: count for name, count in states.items()},
            message="",
        )

    parts = {
        "Up": part(DeploymentStatus.HEALTHY, RUNNING=1),
        "Idle": part(DeploymentStatus.HEALTHY),
        "New": part(DeploymentStatus.UPDATING),
        "Dead": part(DeploymentStatus.UNHEALTHY, STARTING=1),
    }
    application = ApplicationStatusOverview(
        status=ApplicationStatus.RUNNING, message="", last_deployed_time_s=0.0, deployments=parts
    )
    assert missing_parts(application) == ["Dead", "New"]


def test_the_config_fits_the_application_and_two_cores() -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load(CONFIG.read_text()))
    (application,) = config.applications
    assert application.import_path == "dreamhead.serving.app:build"
    settings = ServingSettings.model_validate(application.args)
    assert config.http_options.host == "127.0.0.1", "without API keys nobody else may come in"
    deployments = {part.name: part for part in application.deployments}
    assert set(deployments) == NAMES
    cpus = sum(part.ray_actor_options.num_cpus for part in deployments.values())
    assert cpus <= 2
    chunk_s = settings.dub.analysis.chunk_s
    for name in ("Analyse", "Landmarks", "Render"):
        part = deployments[name]
        assert part.max_ongoing_requests == 1
        assert part.autoscaling_config["min_replicas"] >= 1
        assert part.graceful_shutdown_timeout_s > 10 * chunk_s
