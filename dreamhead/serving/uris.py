"""Which files a request may name: those below the allowed directories, after links and dots are followed."""

from collections.abc import Sequence
from pathlib import Path

from dreamhead import storage
from dreamhead.errors import ConfigError, InputError, StorageError


class AllowedUris:
    """Directories whose files requests may name. Only local and `s3://` ones exist: no host is ever asked by name."""

    def __init__(self, prefixes: Sequence[str]) -> None:
        self._remote: list[str] = []
        self._local: list[Path] = []
        self._shown = ", ".join(prefixes)
        for prefix in prefixes:
            self._add(prefix)

    def check(self, name: str, uri: str) -> str:
        """The uri to use in the place of the request's field `name`; raises InputError."""
        if not self._remote and not self._local:
            raise InputError(f"{name}: this service reads no uris: upload the files as multipart/form-data")
        try:
            allowed = self._check_remote(uri) if storage.is_remote(uri) else self._check_local(uri)
        except (StorageError, OSError, ValueError) as error:
            raise InputError(f"{name}: {error}") from error
        if not allowed:
            raise InputError(f"{name}: {uri} isn't below an allowed directory; allowed: {self._shown}")
        return allowed

    def _add(self, prefix: str) -> None:
        try:
            if storage.is_remote(prefix):
                self._remote.append(prefix.rstrip("/") + "/")
                return
            path = storage.local_path(prefix)
        except StorageError as error:
            raise ConfigError(f"allowed_prefixes: {error}") from error
        if not path.is_absolute():
            raise ConfigError(f"allowed_prefixes: {prefix} must be absolute, or begin with s3://")
        self._local.append(path.resolve())

    def _check_remote(self, uri: str) -> str:
        # Dots mean nothing in S3, but something to what may stand between.
        has_dots = bool({".", ".."} & set(uri.split("/")))
        return "" if has_dots or not any(uri.startswith(prefix) for prefix in self._remote) else uri

    def _check_local(self, uri: str) -> str:
        path = storage.local_path(uri)
        resolved = path.resolve()
        is_inside = path.is_absolute() and any(resolved.is_relative_to(prefix) for prefix in self._local)
        return str(resolved) if is_inside else ""
