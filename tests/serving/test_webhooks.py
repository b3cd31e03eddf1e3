"""Webhooks: who may be posted to, how it is signed, that each is delivered once at least, and given up in the end."""

import asyncio
import base64
import json
import os
import secrets
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from dreamhead import storage
from dreamhead.errors import ConfigError, InputError
from dreamhead.serving.deliveries import LONGEST_DELAY_S, Deliveries, Postman
from dreamhead.serving.jobs import JobStore, Limits, NewJob
from dreamhead.serving.records import Options
from dreamhead.serving.settings import ServingSettings
from dreamhead.serving.webhooks import UndeliveredError, Webhooks, is_public
from tests.racers import deliver_for_ever, spawned

Clock = Any  # The fixture's own class; conftest modules can't be imported.

MANY = Limits(all_jobs=1000, jobs_of_one=1000)
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
HOURS = 24


@dataclass
class Receiver:
    """What came in at `/hook`, and what is answered next."""

    answers: list[int] = field(default_factory=list)
    posts: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    elsewhere: int = 0
    url: str = ""
    host: str = ""
    is_deaf: bool = False

    async def hook(self, request: web.Request) -> web.Response:
        """Take a post."""
        self.posts.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        while self.is_deaf:
            await asyncio.sleep(0.05)
        status = self.answers.pop(0) if self.answers else 204
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else {})

    async def other(self, request: web.Request) -> web.Response:
        """What nobody should ask for."""
        self.elsewhere += 1
        return web.Response()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on this machine."""
    receiver, app = Receiver(), web.Application()
    app.router.add_post("/hook", receiver.hook)
    app.router.add_route("*", "/elsewhere", receiver.other)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    receiver.host = f"127.0.0.1:{server.port}"
    receiver.url = f"http://{receiver.host}/hook"
    try:
        yield receiver
    finally:
        receiver.is_deaf = False
        await server.close()


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run one test's coroutine."""
    asyncio.run(work())  # type: ignore[arg-type]


def webhooks(**values: Any) -> Webhooks:
    """With one secret."""
    made = Webhooks.load(ServingSettings(**values), {"DREAMHEAD_WEBHOOK_SECRET": SECRET})
    assert made is not None
    return made


def postman(store: JobStore, receiver: Receiver) -> Postman:
    return Postman(Deliveries(store, HOURS), webhooks(webhook_private_hosts=[receiver.host]), store.clock)


def job(store: JobStore, url: str) -> str:
    """A job that waits, and asks for a webhook."""
    options = Options(webhook_url=url)
    new = NewJob(owner="anna", video_uri="v.mp4", audio_uri="a.wav", options=options, content=secrets.token_hex(8))
    return store.submit(new, MANY).record.id


def pending(store: JobStore) -> list[str]:
    uris = storage.list_files(storage.join(store.uri, "webhooks"))
    return [uri for uri in uris if not uri.endswith("/.lock")]


def test_a_finished_job_is_posted_signed(store: JobStore, tmp_path: Path) -> None:
    async def work() -> None:
        async with receiving() as receiver:
            job_id = job(store, receiver.url)
            await postman(store, receiver).deliver_due()
            assert receiver.posts == [], "the job isn't over"
            store.cancel("anna", job_id)
            await postman(store, receiver).deliver_due()
            await postman(store, receiver).deliver_due()
            ((headers, body),) = receiver.posts
        told = json.loads(body)
        assert (told["id"], told["status"], told["links"]["self"]) == (job_id, "cancelled", f"/v1/dubs/{job_id}")
        assert headers["webhook-id"] == f"msg_{job_id}"
        assert int(headers["webhook-timestamp"]) == int(store.clock().timestamp())
        signed = tmp_path / "signed"
        signed.write_bytes(f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body)
        hmac = ["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{b'k'.hex() * 32}", "-binary"]
        digest = subprocess.run([*hmac, str(signed)], check=True, capture_output=True).stdout
        assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
        assert pending(store) == []

    run(work)


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of its specification."""
    spec = {"DREAMHEAD_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
    made = Webhooks.load(ServingSettings(), spec)
    assert made is not None
    headers = made.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["Webhook-Signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_two_secrets_sign_both_while_one_takes_over_from_the_other(tmp_path: Path) -> None:
    path = tmp_path / "secrets"
    path.write_text(f"{SECRET}\nwhsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    made = Webhooks.load(ServingSettings(webhook_secret_file=str(path)), {})
    assert made is not None
    signature = made.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')["Webhook-Signature"]
    assert len(signature.split()) == 2
    assert signature.split()[1] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_receiver_that_fails_is_tried_again_under_the_same_name(store: JobStore, clock: Clock) -> None:
    async def work() -> None:
        async with receiving() as receiver:
            receiver.answers = [500, 500]
            job_id = job(store, receiver.url)
            store.cancel("anna", job_id)
            for delay_s in (29, 9, 59, 20, 0):
                await postman(store, receiver).deliver_due()
                clock.turn(delay_s)
            assert len(receiver.posts) == 3
            assert len({headers["webhook-id"] for headers, _ in receiver.posts}) == 1
            assert len({body for _, body in receiver.posts}) == 1
            times = [int(headers["webhook-timestamp"]) for headers, _ in receiver.posts]
            assert [later - times[0] for later in times] == [0, 38, 117]
            assert pending(store) == []

    run(work)


def test_whoever_is_killed_over_a_try_has_it_made_again(tmp_path: Path) -> None:
    store = JobStore(str(tmp_path))

    async def work() -> None:
        async with receiving() as receiver:
            receiver.is_deaf = True
            job_id = job(store, receiver.url)
            store.cancel("anna", job_id)
            process = spawned(deliver_for_ever, store.uri, receiver.host, SECRET)
            while not receiver.posts:
                await asyncio.sleep(0.02)
            os.kill(process.pid or 0, signal.SIGKILL)
            await asyncio.to_thread(process.join)
            receiver.is_deaf = False
            await postman(store, receiver).deliver_due()
            assert len(receiver.posts) == 1, "the next try isn't due"
            later = JobStore(store.uri, lambda: store.clock() + timedelta(seconds=60))
            await postman(later, receiver).deliver_due()
            assert [headers["webhook-id"] for headers, _ in receiver.posts] == [f"msg_{job_id}"] * 2
            assert pending(store) == []

    run(work)


def test_workers_never_make_the_same_try(store: JobStore) -> None:
    async def work() -> None:
        async with receiving() as receiver:
            for _ in range(5):
                store.cancel("anna", job(store, receiver.url))
            await asyncio.gather(*(postman(store, receiver).deliver_due() for _ in range(4)))
            assert len(receiver.posts) == len({headers["webhook-id"] for headers, _ in receiver.posts}) == 5

    run(work)


def test_it_is_given_up_in_the_end_or_when_the_receiver_says_so(store: JobStore, clock: Clock) -> None:
    async def work() -> None:
        async with receiving() as receiver:
            receiver.answers = [410]
            store.cancel("anna", job(store, receiver.url))
            await postman(store, receiver).deliver_due()
            assert pending(store) == []
            receiver.posts.clear()
            receiver.answers = [500] * 100
            store.cancel("anna", job(store, receiver.url))
            began = clock()
            while pending(store):
                await postman(store, receiver).deliver_due()
                clock.turn(600)
            lasted = clock() - began
            assert timedelta(hours=HOURS) - timedelta(seconds=2 * LONGEST_DELAY_S) < lasted < timedelta(hours=HOURS + 1)
            assert 10 < len(receiver.posts) < 25

    run(work)


def test_no_redirect_is_followed(store: JobStore) -> None:
    async def work() -> None:
        async with receiving() as receiver:
            receiver.answers = [302]
            store.cancel("anna", job(store, receiver.url))
            await postman(store, receiver).deliver_due()
            assert (len(receiver.posts), receiver.elsewhere) == (1, 0)
            assert len(pending(store)) == 1

    run(work)


def test_a_name_of_a_private_address_isnt_connected_to() -> None:
    async def work() -> None:
        async with receiving() as receiver:
            port = receiver.host.partition(":")[2]
            hooks = webhooks(webhook_hosts=[f"localhost:{port}"])
            with pytest.raises(
                UndeliveredError, match=r"localhost is (127\.0\.0\.1|::1), which isn't a public address"
            ):
                await hooks.post(f"https://localhost:{port}/hook", "msg_1", 1, b"{}")
            allowed = webhooks(webhook_private_hosts=[f"localhost:{port}"])
            await allowed.post(f"http://localhost:{port}/hook", "msg_1", 1, b"{}")
            assert len(receiver.posts) == 1

    run(work)


HOSTS: dict[str, Any] = {
    "webhook_hosts": ["hooks.example.com", "*.studio.example", "93.184.215.14", "127.0.0.1"],
    "webhook_private_hosts": ["render.lan:8080"],
}


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/done",
        "https://hooks.example.com:443/done?x=1",
        "https://a.studio.example/done",
        "https://93.184.215.14/done",
        "http://render.lan:8080/done",
    ],
)
def test_listed_hosts_may_be_posted_to(url: str) -> None:
    assert str(webhooks(**HOSTS).check(url)).replace(":443", "") == url.replace(":443", "")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://hooks.example.com/done", "must begin with https://"),
        ("https://hooks.example.com:8443/done", "isn't a host that this service may post to"),
        ("https://hooks.example.com.evil.example/", "isn't a host"),
        ("https://studio.example/", "isn't a host"),
        ("https://evilstudio.example/", "isn't a host"),
        ("https://hooks.example.com@evil.example/", "without a user in it"),
        ("https://evil.example#@hooks.example.com/", "isn't a host"),
        ("https://evil.example\\@hooks.example.com/", "backslash"),
        ("https://127.0.0.1/", "127.0.0.1 isn't a public address"),
        ("https://[::ffff:169.254.169.254]/", "isn't a host"),
        ("https://169.254.169.254/latest", "isn't a host"),
        ("https://render.lan/done", "isn't a host"),
        ("file:///etc/passwd", "must be https://HOST"),
        ("gopher://hooks.example.com/", "must be https://HOST"),
        ("done", "must be https://HOST"),
    ],
)
def test_no_other_host_is(url: str, reason: str) -> None:
    with pytest.raises(InputError, match=r"^webhook_url: ") as raised:
        webhooks(**HOSTS).check(url)
    assert reason in str(raised.value)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("127.8.8.8", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00:ec2::254", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_what_is_public(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) is public


def test_secrets_that_arent_any_are_refused_and_not_shown(tmp_path: Path) -> None:
    assert Webhooks.load(ServingSettings(), {}) is None
    for text in ("whsec_c2hvcnQ=", "my-secret-word", "whsec_" + base64.b64encode(b"x" * 65).decode()):
        with pytest.raises(ConfigError, match="DREAMHEAD_WEBHOOK_SECRET: a secret is whsec_ and") as raised:
            Webhooks.load(ServingSettings(), {"DREAMHEAD_WEBHOOK_SECRET": text})
        assert text not in str(raised.value)
    with pytest.raises(ConfigError, match="holds no secret"):
        Webhooks.load(ServingSettings(), {"DREAMHEAD_WEBHOOK_SECRET": " "})
    with pytest.raises(ConfigError, match=r"webhook_secret_file: .*gone: can't read"):
        Webhooks.load(ServingSettings(webhook_secret_file=str(tmp_path / "gone")), {})
    with pytest.raises(ValueError, match="webhook_hosts"):
        ServingSettings(webhook_hosts=["https://host/"])


def test_a_webhook_without_its_job_is_forgotten(store: JobStore, clock: Clock) -> None:
    async def work() -> None:
        async with receiving() as receiver:
            job_id = job(store, receiver.url)
            store.cancel("anna", job_id)
            storage.delete(storage.join(store.uri, "jobs", f"{job_id}.json"))
            await postman(store, receiver).deliver_due()
            assert len(pending(store)) == 1, "it may be one that is being submitted"
            clock.turn(3601)
            await postman(store, receiver).deliver_due()
            assert (pending(store), receiver.posts) == ([], [])

    run(work)
