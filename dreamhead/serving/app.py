"""The service on Ray Serve: what `serve_config.yaml` imports."""

from typing import Any

from ray import serve
from ray.serve import Application, Deployment

from dreamhead import storage
from dreamhead.serving.deployments import Analyse, Landmarks, Render
from dreamhead.serving.ingress import Api
from dreamhead.serving.settings import ServingSettings
from dreamhead.serving.workers import Dubber


def build(args: ServingSettings) -> Application:
    """The application: Api takes requests, Dubber takes jobs through Analyse, Landmarks and Render."""
    settings = _absolute(args)
    stages = [_deployment(part).bind(settings) for part in (Analyse, Landmarks, Render)]
    return _deployment(serve.ingress()(Api)).bind(settings, _deployment(Dubber).bind(settings, *stages))


def _deployment(part: Any) -> Deployment:
    """Its sizes are Serve's own settings: they stand in the config, not here."""
    return serve.deployment(name=part.__name__)(part)


def _absolute(settings: ServingSettings) -> ServingSettings:
    """Replicas run in directories of their own."""
    given = {name: getattr(settings, name) for name in ("storage", "work", "checkpoint", "samples")}
    resolved: dict[str, object] = {name: uri and storage.resolve(uri, ".") for name, uri in given.items()}
    others = {name: storage.resolve(uri, ".") for name, uri in settings.checkpoints.items()}
    return settings.model_copy(update=resolved | {"checkpoints": others})
