"""The HTTP interface as one FastAPI application, without Ray."""

from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic.json_schema import models_json_schema

from dreamhead import __version__
from dreamhead.serving import comparison, page_files, reading, samples, streaming, submission
from dreamhead.serving.problems import add_handlers, problem
from dreamhead.serving.schemas import DubRequest
from dreamhead.serving.service import Service, TheService

DESCRIPTION = "Re-renders a speaker's mouth so that it says other speech."


class Api(FastAPI):
    """An application whose description holds also what is read without FastAPI's help."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI description."""
        schema = super().openapi()
        _, more = models_json_schema([(DubRequest, "validation")], ref_template="#/components/schemas/{model}")
        schema["components"]["schemas"] |= more["$defs"]
        return schema


def build_api(service: Service) -> FastAPI:
    """The application around one service."""
    app = Api(title="DreamHead", version=__version__, description=DESCRIPTION)
    app.state.service = service
    add_handlers(app, service.settings.retry_after_s)
    app.include_router(submission.router, tags=["dubs"])
    app.include_router(reading.router, tags=["dubs"])
    app.include_router(streaming.router, tags=["dubs"])
    app.include_router(comparison.router, tags=["dubs"])
    app.include_router(samples.router, tags=["samples"])
    app.include_router(page_files.router)
    app.add_api_route("/healthz", health, methods=["GET"], tags=["service"])
    return app


async def health(service: TheService) -> JSONResponse:
    """Whether every part is up, its weights loaded: 200, else 503 with what is missing."""
    missing = await service.missing()
    if missing:
        return problem(503, f"not ready: {', '.join(missing)}")
    return JSONResponse({"status": "ok"})
