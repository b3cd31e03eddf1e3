"""The page of a blind comparison and what it asks for, on the loopback address alone."""

import mimetypes
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dreamhead.evaluation.blind.ballot import Choice, Dubs, Shown, Side, Vote, VoteBook, order_for
from dreamhead.evaluation.blind.tally import Tally

PAGE = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
HOST = "127.0.0.1"
HOSTS = (HOST, "localhost")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Votes change what is shown, and sides must not be guessed from what a browser still holds.
    "Cache-Control": "no-store",
}


def _named(value: str) -> str:
    name = " ".join(value.split())
    if not name or not name.isprintable():
        raise ValueError("a name of 1 to 60 printable characters is needed")
    return name


Judge = Annotated[str, Field(max_length=60), AfterValidator(_named)]


class NewVote(BaseModel):
    """What the page sends of one pair."""

    model_config = ConfigDict(extra="forbid")

    judge: Judge
    number: int = Field(ge=0)
    """The pair's place in this judge's order."""
    choice: Choice
    seconds: float = Field(default=0.0, ge=0)


class Comparison:
    """Pairs, votes and the names that A and B have once all is judged."""

    def __init__(self, dubs: Sequence[Dubs], names: tuple[str, str], book: VoteBook, seed: int) -> None:
        self.names = names
        self.book = book
        self._dubs = {one.clip: one for one in dubs}
        self._seed = seed

    def order(self, judge: str) -> list[Shown]:
        """All pairs as this judge sees them."""
        return order_for(judge, list(self._dubs), self._seed)

    def file(self, judge: str, number: int, side: Side) -> Path:
        """The video that this judge sees there; raises HTTPException 404."""
        shown = self._shown(judge, number)
        return self._dubs[shown.clip].file(shown.on(side))

    def state(self, judge: str) -> dict[str, Any]:
        """What is done and what comes next; who is who only once nothing is left."""
        order, given = self.order(judge), self.book.of(judge)
        left = [number for number, shown in enumerate(order) if shown.clip not in given]
        state: dict[str, Any] = {
            "pairs": len(order),
            "done": len(order) - len(left),
            "next": left[0] if left else None,
        }
        if not left:
            votes = [given[shown.clip] for shown in order]
            state["result"] = result(Tally.of(vote.preferred for vote in votes), self.names)
        return state

    def vote(self, new: NewVote) -> None:
        """Write a vote down; raises HTTPException 404 where there is no such pair."""
        shown = self._shown(new.judge, new.number)
        self.book.add(Vote(new.judge, shown.clip, shown.preferred(new.choice), shown.left, round(new.seconds, 1)))

    def _shown(self, judge: str, number: int) -> Shown:
        order = self.order(judge)
        if number >= len(order):
            raise HTTPException(404, f"there are {len(order)} pairs, numbered from 0; got {number}")
        return order[number]


def result(tally: Tally, names: tuple[str, str]) -> dict[str, Any]:
    """A tally as JSON tells it."""
    low, high = tally.interval
    return {
        "names": list(names),
        "a": tally.a,
        "b": tally.b,
        "equal": tally.equal,
        "share": tally.share if tally.a + tally.b else None,
        "low": low,
        "high": high,
        "p_value": tally.p_value,
    }


def build_app(comparison: Comparison) -> FastAPI:
    """The application; it answers requests for this machine's own names only."""
    app = FastAPI(title="DreamHead: blind comparison", docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        """Other sites' pages must not read or vote: not by a name that they point here, nor from their own origin."""
        origin = request.headers.get("origin")
        if request.url.hostname not in HOSTS or (origin and origin != f"{request.url.scheme}://{request.url.netloc}"):
            return Response("only this machine's own page is answered\n", status_code=403, media_type="text/plain")
        response = await answer(request)
        response.headers.update(HEADERS)
        for name in ("etag", "last-modified"):
            # A file's time may tell whose it is.
            if name in response.headers:
                del response.headers[name]
        return response

    @app.get("/")
    def index() -> Response:
        """The page."""
        return _part("index.html")

    @app.get("/page/{name}")
    def part(name: str) -> Response:
        """A style sheet or script of the page."""
        return _part(name)

    @app.get("/state")
    def state(judge: Judge) -> dict[str, Any]:
        """What this judge has done, and what comes next."""
        return comparison.state(judge)

    @app.get("/video/{number}/{side}")
    def video(number: int, side: Side, judge: Judge) -> FileResponse:
        """One of the two videos, in ranges where the browser asks for them; nothing says which dub it is."""
        path = comparison.file(judge, number, side)
        kind = mimetypes.guess_type(path.name)[0] or "video/mp4"
        return FileResponse(path, media_type=kind)

    @app.post("/votes")
    def votes(new: NewVote) -> dict[str, Any]:
        """Take a vote; the answer is the state after it."""
        comparison.vote(new)
        return comparison.state(new.judge)

    return app


def serve(app: FastAPI, port: int, ready: Callable[[str], None]) -> None:
    """Answer on the loopback address until interrupted; `ready` is told the page's address. Port 0: any free one."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        # Whoever comes at once waits a moment, instead of being refused.
        listening.listen()
        ready(f"http://{HOST}:{listening.getsockname()[1]}/")
        config = uvicorn.Config(app, log_level="warning", lifespan="off", ws="none", timeout_graceful_shutdown=1)
        # Uvicorn ends in order, and then passes the interrupt on.
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run([listening])


def _part(name: str) -> Response:
    path = PAGE / name
    if name not in {path.name for path in PAGE.iterdir()}:
        raise HTTPException(404, f"the page has no part {name}")
    return Response(path.read_bytes(), media_type=TYPES[path.suffix])
