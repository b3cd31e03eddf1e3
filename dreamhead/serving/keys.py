"""API keys: who may use the service, known by the digests of their keys only.

A line a key, `NAME SHA256`, in a file or in the environment variable DREAMHEAD_API_KEYS (there also between commas);
what stands after a `#` is a comment. Several keys may share a name: they see the same jobs.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from typing import NamedTuple

from typing_extensions import Self

from dreamhead import storage
from dreamhead.errors import ConfigError, DreamheadError, StorageError

VARIABLE = "DREAMHEAD_API_KEYS"
EVERYBODY = "everybody"
"""Owner of all jobs where no keys are set."""

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
DIGEST = re.compile(r"[0-9a-f]{64}")


class UnknownKeyError(DreamheadError):
    """A request without a key, or with one that nobody has."""


class NewKey(NamedTuple):
    """A key, which its user gets, and the line that the service gets."""

    key: str
    line: str


def new_key(name: str) -> NewKey:
    """Make a key of 256 random bits: so long that its bare digest tells nothing. Raises ConfigError for a bad name."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"API key {name!r}: a name is 1 to 63 of a-z 0-9 and dashes, no dash first")
    key = f"dh_{secrets.token_urlsafe(32)}"
    return NewKey(key, f"{name} {_digest(key)}")


class ApiKeys:
    """Names by the digests of their keys."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = dict(names)

    @classmethod
    def load(cls, uri: str, environment: Mapping[str, str]) -> "ApiKeys | None":
        """The keys of the file, else of the environment; None where neither is set. Raises ConfigError.

        What is set and holds no key is an error: a service must not open to all because a secret got lost.
        """
        if uri:
            try:
                return cls._parse(uri, storage.read_bytes(uri).decode("utf-8"))
            except (StorageError, UnicodeDecodeError) as error:
                raise ConfigError(f"api_keys_file: {error}") from error
        return cls._parse(VARIABLE, environment[VARIABLE]) if VARIABLE in environment else None

    def owner(self, authorization: str) -> str:
        """The name behind an Authorization header; raises UnknownKeyError."""
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise UnknownKeyError("an API key is needed: send the header Authorization: Bearer KEY")
        # A look-up by digest tells nothing by the time it takes.
        name = self._names.get(_digest(key.strip()))
        if name is None:
            raise UnknownKeyError("this API key isn't known")
        return name

    @classmethod
    def _parse(cls, source: str, text: str) -> Self:
        names: dict[str, str] = {}
        for number, line in enumerate(re.split(r"[\n,]", text), start=1):
            entry = line.partition("#")[0].split()
            if not entry:
                continue
            if len(entry) != 2 or not NAME.fullmatch(entry[0]) or not DIGEST.fullmatch(entry[1]):
                # Not the entry itself: it may be a key that somebody forgot to hash.
                raise ConfigError(f"{source}: entry {number} isn't `NAME SHA256`, as dreamhead.serving.keys makes them")
            names[entry[1]] = entry[0]
        if not names:
            raise ConfigError(f"{source}: holds no API key; leave it away to let everybody in")
        return cls(names)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
