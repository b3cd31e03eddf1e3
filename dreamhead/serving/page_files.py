"""Serve the page at `/`: a few files of this package, which a browser may join with nothing from elsewhere."""

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request, Response

from dreamhead.serving.problems import ProblemError

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

POLICY = "; ".join(
    (
        "default-src 'self'",
        # A video that needs an API key is fetched by the page itself, and shown from its memory.
        "img-src 'self' blob:",
        "media-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Asked for again each time, so that page and service are of one version.
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False)


@router.get("/")
@router.head("/")
def read_page(request: Request) -> Response:
    """The page. It needs no API key: it asks for one where the service does."""
    return _file(request, INDEX)


@router.get("/page/{name}")
@router.head("/page/{name}")
def read_part(request: Request, name: str) -> Response:
    """A style sheet, script or picture of the page."""
    if name == INDEX or name not in {path.name for path in FOLDER.iterdir()}:
        raise ProblemError(404, f"the page has no part {name}")
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    content = (FOLDER / name).read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = HEADERS | {"ETag": etag}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=TYPES[Path(name).suffix])
