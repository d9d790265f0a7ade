"""What the errors of an object store mean: whether asking again may help, and how a user reads them.

Neither the messages of a server nor the requests that failed are quoted: a server may repeat the
credentials that it was given, and a request holds them.  The error that was raised stays the cause.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

_ASK_AGAIN_CODES = frozenset({
    "BadDigest", "BandwidthLimitExceeded", "ConditionalRequestConflict", "IncompleteBody", "InternalError",
    "OperationAborted", "RequestLimitExceeded", "RequestThrottled", "RequestTimeout", "ServiceUnavailable",
    "SlowDown", "Throttling", "ThrottlingException", "TooManyRequestsException", "XAmzContentSHA256Mismatch",
})  # fmt: skip
_ASK_AGAIN_STATUS = frozenset({429, 500, 502, 503, 504})

_TAKEN = frozenset({"412", "PreconditionFailed"})

_CREDENTIALS = (
    "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; a job on a Ray cluster has those with"
    " which Ray was started on each node"
)
_ENDPOINT = "check that the store runs and is reachable from there, and AWS_ENDPOINT_URL"
_RIGHTS = (
    "allow these credentials to list the bucket and its uploads, and to get, put and delete objects below"
    " the path"
)
_REGION = "set AWS_DEFAULT_REGION to the region of the bucket"
_OVERLOADED = "the job asks again with its next attempt; see the state of the store when it lasts"

_BY_CODE: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        ("AccessDenied", "AllAccessDisabled", "403", "Forbidden", "MethodNotAllowed", "405"),
        ("access is denied", _RIGHTS),
    ),
    **dict.fromkeys(
        ("InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException", "XAdminUserNotFound"),
        ("the store does not know the access key", _CREDENTIALS),
    ),
    "SignatureDoesNotMatch": ("the secret key does not fit the access key", _CREDENTIALS),
    "InvalidToken": ("the session token does not fit the access key", "check AWS_SESSION_TOKEN"),
    **dict.fromkeys(
        ("ExpiredToken", "TokenRefreshRequired", "RequestExpired", "ExpiredTokenException"),
        ("the credentials have expired", "renew them, or use a profile or role that renews them by itself"),
    ),
    "RequestTimeTooSkewed": ("the clock of this machine is wrong", "set the clock; the store compares it"),
    "NoSuchBucket": ("the bucket does not exist", "create the bucket, or correct its name in the URL"),
    "InvalidBucketName": ("the store refuses the name of the bucket", "correct it in the URL"),
    **dict.fromkeys(
        ("PermanentRedirect", "TemporaryRedirect", "301", "307", "AuthorizationHeaderMalformed",
         "IllegalLocationConstraintException"),
        ("the bucket is in another region", _REGION),
    ),
    "NoSuchUpload": (
        "somebody has aborted the upload",
        "make sure that no lifecycle rule of the bucket aborts uploads within a day",
    ),
    "KeyTooLongError": ("the path is too long for the store", "choose a shorter path"),
    **dict.fromkeys(
        ("QuotaExceeded", "InsufficientStorage", "507"),
        ("the store is full", "free some space, or choose another bucket"),
    ),
    **dict.fromkeys(
        ("NotImplemented", "501"),
        ("the store lacks an operation", "use one with conditional writes and multipart uploads"),
    ),
    **dict.fromkeys(
        ("SlowDown", "ServiceUnavailable", "503", "InternalError", "500", "502", "504"),
        ("the store is overloaded or out of service", _OVERLOADED),
    ),
}  # fmt: skip

_NO_CREDENTIALS: tuple[type[Exception], ...] = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.SSOError,
)

_BROKEN_CONNECTION: tuple[type[Exception], ...] = (
    boto.ConnectionError,
    boto.HTTPClientError,
    boto.IncompleteReadError,
    boto.ResponseStreamingError,
    ResponseParserError,
    aiohttp.ClientError,
    OSError,
)

ERRORS = (boto.BotoCoreError, boto.ClientError, ResponseParserError, aiohttp.ClientError, OSError, ValueError)
"""What a request may raise; an elapsed time is an OSError."""


def may_succeed_later(error: BaseException) -> bool:
    """Return whether the same request may succeed when it is sent again."""
    if isinstance(error, boto.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return _code(error) in _ASK_AGAIN_CODES or status in _ASK_AGAIN_STATUS
    # A certificate that is not trusted stays so; a proxy or a name that is not known may come back.
    return isinstance(error, _BROKEN_CONNECTION) and not isinstance(error, boto.SSLError)


def file_is_missing(error: BaseException) -> bool:
    """Return whether the store says that there is no such object; a missing bucket is another matter.

    Only an answer to HEAD has no room for more than a status.  Any other 404 without a code is that of
    something in between, which has lost the store: no file is missing because of it.
    """
    head = isinstance(error, boto.ClientError) and error.operation_name == "HeadObject"
    return _code(error) == "NoSuchKey" or (head and _code(error) == "404")


def name_is_taken(error: BaseException) -> bool:
    """Return whether a write was refused because an object of that name exists."""
    return _code(error) in _TAKEN


def range_is_behind_the_end(error: BaseException) -> bool:
    """Return whether no byte of the object is in the range that was asked for."""
    return _code(error) in ("416", "InvalidRange")


def upload_is_gone(error: BaseException) -> bool:
    """Return whether a multipart upload was completed or aborted before."""
    return _code(error) == "NoSuchUpload"


def listing_of_uploads_is_refused(error: BaseException) -> bool:
    """Return whether the store or its rights do not let us see unfinished uploads."""
    return _code(error) in ("AccessDenied", "403", "NotImplemented", "501", "MethodNotAllowed", "405")


def cause_and_advice(error: BaseException) -> tuple[str, str]:
    """Return one line that says what happened, and one that says what to do about it."""
    if isinstance(error, boto.ClientError):
        code = _code(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        known = _BY_CODE.get(code) or _BY_CODE.get(str(status))
        return known or (f"the store answered {code} with HTTP status {status}", "")
    if isinstance(error, boto.ProfileNotFound):
        return "the profile of AWS_PROFILE does not exist", "correct AWS_PROFILE, or add the profile"
    if isinstance(error, _NO_CREDENTIALS):
        return "there are no credentials", f"{_CREDENTIALS}, or the role of the machine"
    if isinstance(error, boto.SSLError):
        return f"the certificate of {_endpoint(error)} is not trusted", "set AWS_CA_BUNDLE"
    if isinstance(error, boto.ReadTimeoutError | TimeoutError):
        return f"{_endpoint(error)} did not answer in time", _ENDPOINT
    if isinstance(error, boto.ConnectionClosedError):
        return f"connection to {_endpoint(error)} broke", _ENDPOINT
    if isinstance(error, boto.ConnectionError | boto.HTTPClientError):
        return f"no connection to {_endpoint(error)}", _ENDPOINT
    if isinstance(error, _BROKEN_CONNECTION):
        return "the connection to the store broke", _ENDPOINT
    if isinstance(error, ValueError):
        return "the endpoint is not a URL", "correct AWS_ENDPOINT_URL, such as https://host:port"
    return (
        f"the request could not be made: {type(error).__name__}",
        "check the AWS settings where the job runs",
    )


def _code(error: BaseException) -> str:
    if not isinstance(error, boto.ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", ""))


def _endpoint(error: BaseException) -> str:
    """Return the server that a request went to, without what else its URL may hold."""
    details: Mapping[str, Any] = getattr(error, "kwargs", {})
    url = urlsplit(str(details.get("endpoint_url") or ""))
    if not url.hostname:
        return "the store"
    port = f":{url.port}" if url.port else ""
    return f"{url.scheme}://{url.hostname}{port}"
