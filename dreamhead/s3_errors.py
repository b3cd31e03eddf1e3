"""What goes wrong with S3 storage: which errors that are, and what they mean in words."""

import asyncio
from typing import Any

REASONS = {
    "AccessDenied": "access denied: these credentials may not do this here",
    "403": "access denied: these credentials may not do this here (or, without s3:ListBucket, there is no such object)",
    "AllAccessDisabled": "access denied: all access to this bucket is disabled",
    "NoSuchBucket": "the bucket does not exist at this endpoint",
    "NoSuchKey": "no such object",
    "404": "no such object, or no such bucket",
    "ExpiredToken": "the credentials have expired; renew them",
    "RequestExpired": "the credentials have expired; renew them",
    "TokenRefreshRequired": "the credentials have expired; renew them",
    "InvalidToken": "the session token isn't valid; check AWS_SESSION_TOKEN",
    "InvalidAccessKeyId": "the access key is unknown at this endpoint; check AWS_ACCESS_KEY_ID or AWS_PROFILE",
    "SignatureDoesNotMatch": "the secret key doesn't belong to the access key; check AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "this machine's clock differs from the endpoint's; set it",
    "400": "the endpoint refused the request without a reason: expired credentials, or a bucket of another region",
    "SlowDown": "the endpoint is throttling: too many requests at a time",
    "503": "the endpoint is throttling, or not available",
    "500": "the endpoint had an internal error",
    "PreconditionFailed": "it was replaced while it was being read",
    "412": "it was replaced while it was being read",
}
"""S3's error codes (numbers where an answer has no body) in words."""

OTHER_REGION = ("PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")
STORE_FULL = ("XMinioStorageFull", "QuotaExceeded", "507")


def broken_bodies() -> tuple[type[Exception], ...]:
    """What is raised where an answer breaks off."""
    # Importing s3fs takes most of a second, which work on local files needn't wait for, nor have it installed.
    from botocore.exceptions import BotoCoreError
    from s3fs.core import S3_RETRYABLE_ERRORS

    return (*S3_RETRYABLE_ERRORS, BotoCoreError, asyncio.TimeoutError)


def failures() -> tuple[type[Exception], ...]:
    """What is raised where a request fails."""
    # s3fs turns S3's answers into OSError, wrong names into ValueError, and lets the others through.
    return (OSError, ValueError, *broken_bodies())


def reason(error: Exception, code: str, request_s: float) -> str:
    """Why a request failed; `request_s` is the limit on it with all its tries."""
    from botocore.exceptions import BotoCoreError, NoCredentialsError

    if code in STORE_FULL:
        return "the object storage is full; free some of it"
    if code in OTHER_REGION:
        region = _response(error).get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region", "")
        place = f"in the region {region}" if region else "in another region"
        return f"the bucket lies {place}; set AWS_REGION, or AWS_ENDPOINT_URL for another endpoint"
    if isinstance(error, NoCredentialsError):
        return "no credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if isinstance(error, asyncio.TimeoutError) and not isinstance(error, BotoCoreError):
        return f"the endpoint gave no whole answer in {request_s:g} s"
    return REASONS.get(code) or _text(error)


def _text(error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(text.split())


def _response(error: BaseException) -> dict[str, Any]:
    """S3's own answer; s3fs leaves it with the cause of the error that it makes of it."""
    found = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    return found if isinstance(found, dict) else {}


def code(error: BaseException) -> str:
    """S3's own code for an error, or nothing."""
    return str(_response(error).get("Error", {}).get("Code", ""))
