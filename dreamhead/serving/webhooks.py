"""Webhooks as Standard Webhooks has them: where they may go, how they are signed, how one is sent.

A service that posts to whatever url a request names would post into its own network. So hosts are listed in the
settings, and the address that a name stands for is looked at in the very look-up that the connection is made by.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from dreamhead import storage
from dreamhead.errors import ConfigError, DreamheadError, InputError, StorageError
from dreamhead.serving.settings import ServingSettings

VARIABLE = "DREAMHEAD_WEBHOOK_SECRET"
PREFIX = "whsec_"
SECRET_BYTES = range(24, 65)
"""How long Standard Webhooks lets a secret be."""
TRY_S = 20.0
"""Longest time for one post, from the look-up of the name to the answer's first lines."""
NAT64 = IPv6Network("64:ff9b::/96")

Address = IPv4Address | IPv6Address


class UndeliveredError(DreamheadError):
    """A post wasn't answered with success."""


class GoneError(UndeliveredError):
    """The receiver wants no more of it."""


class Webhooks:
    """Sends to the hosts of the settings, signed with each of the secrets."""

    def __init__(self, settings: ServingSettings, secrets: Sequence[bytes]) -> None:
        self._public = settings.webhook_hosts
        self._private = settings.webhook_private_hosts
        self._secrets = secrets

    @classmethod
    def load(cls, settings: ServingSettings, environment: Mapping[str, str] = os.environ) -> "Webhooks | None":
        """With the secrets of the file, else of the environment; None where neither is set. Raises ConfigError."""
        source, text = settings.webhook_secret_file or VARIABLE, environment.get(VARIABLE, "")
        if settings.webhook_secret_file:
            try:
                text = storage.read_bytes(source).decode("ascii")
            except (StorageError, UnicodeDecodeError) as error:
                raise ConfigError(f"webhook_secret_file: {error}") from error
        elif VARIABLE not in environment:
            return None
        secrets = [_secret(source, word) for word in text.split()]
        if not secrets:
            raise ConfigError(f"{source}: holds no secret; one is {PREFIX} and 24 to 64 bytes in base64")
        return cls(settings, secrets)

    def check(self, text: str) -> URL:
        """The url to post to; raises InputError where that isn't allowed."""
        try:
            url = URL(text)
        except ValueError as error:
            raise InputError(f"webhook_url: {error}") from error
        if url.scheme not in ("https", "http") or not url.raw_host or url.raw_user or url.raw_password:
            raise InputError("webhook_url: must be https://HOST/..., without a user in it")
        if url.scheme == "http" and not self._is_private(url):
            raise InputError("webhook_url: must begin with https://")
        if not (self._is_private(url) or any(_fits(pattern, url) for pattern in self._public)):
            raise InputError(f"webhook_url: {url.authority} isn't a host that this service may post to")
        literal = _literal(url.raw_host)
        if literal and not self._is_private(url) and not is_public(literal):
            raise InputError(f"webhook_url: {url.raw_host} isn't a public address")
        return url

    def headers(self, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """What tells the receiver who posts."""
        signed = f"{message_id}.{timestamp}.".encode() + body
        digests = [hmac.new(secret, signed, hashlib.sha256).digest() for secret in self._secrets]
        return {
            "Content-Type": "application/json",
            "User-Agent": "DreamHead",
            "Webhook-Id": message_id,
            "Webhook-Timestamp": str(timestamp),
            "Webhook-Signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
        }

    async def post(self, text: str, message_id: str, timestamp: int, body: bytes) -> None:
        """Post once; raises UndeliveredError with the reason, InputError where the settings don't allow it any more."""
        url = self.check(text)
        resolver = _Resolver(only_public=not self._is_private(url))
        async with (
            aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True) as connector,
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=TRY_S),
            ) as session,
        ):
            headers = self.headers(message_id, timestamp, body)
            try:
                # Of the answer only the status counts: its body is never read.
                async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                    status = response.status
            except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
                raise UndeliveredError(str(error) or f"no answer within {TRY_S:g} s") from error
        if status == 410:
            raise GoneError("the receiver answered 410: it wants no more of it")
        if not 200 <= status < 300:
            raise UndeliveredError(f"the receiver answered {status}")

    def _is_private(self, url: URL) -> bool:
        return any(_fits(name, url) for name in self._private)


class _Resolver(AbstractResolver):
    """Looks names up, and refuses what isn't public: the connection then goes to what was looked at."""

    def __init__(self, *, only_public: bool) -> None:
        self._system = aiohttp.ThreadedResolver()
        self._only_public = only_public

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._system.resolve(host, port, family)
        for one in found:
            if self._only_public and not is_public(ip_address(one["host"].partition("%")[0])):
                raise UndeliveredError(f"{host} is {one['host']}, which isn't a public address")
        return found

    async def close(self) -> None:
        await self._system.close()


def is_public(address: Address) -> bool:
    """Whether it is out in the internet; one that wraps another is what it wraps."""
    if isinstance(address, IPv6Address):
        wrapped = address.ipv4_mapped or address.sixtofour
        if wrapped is None and address in NAT64:
            wrapped = IPv4Address(int(address) & 0xFFFFFFFF)
        if wrapped is not None:
            return is_public(wrapped)
    return address.is_global and not address.is_multicast


def _fits(pattern: str, url: URL) -> bool:
    """Whether the url is at this HOST, *.DOMAIN or either with :PORT; without, at the scheme's own port."""
    host, _, port = pattern.rpartition(":") if pattern.rpartition(":")[2].isdecimal() else (pattern, "", "")
    if url.port != (int(port) if port else {"https": 443, "http": 80}[url.scheme]):
        return False
    name = (url.raw_host or "").rstrip(".")
    return name.endswith(host[1:]) if host.startswith("*.") else name == host.strip("[]")


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _secret(source: str, word: str) -> bytes:
    try:
        secret = base64.b64decode(word.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        secret = b""
    if len(secret) not in SECRET_BYTES:
        # Not the secret itself, nor a part of it.
        raise ConfigError(f"{source}: a secret is {PREFIX} and 24 to 64 bytes in base64")
    return secret
