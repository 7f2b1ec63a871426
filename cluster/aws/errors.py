"""Translation of botocore's errors into `mesaform.common.errors`.

The table `FAULT_OF_CODE` is the only place that lists error codes of AWS. Codes are those of the
"Error codes for the Amazon EC2 API" page and of the API references of S3, IAM, SSM, SQS, CloudWatch
Logs, EventBridge, Elastic Load Balancing, Route 53 and STS. Nothing reads an error's message text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from mesaform.common.errors import (
    CloudError,
    CredentialsExpired,
    InsufficientCapacity,
    NotAuthenticated,
    NotFound,
    Permanent,
    Retryable,
)

THROTTLED_AFTER_S = 5.0
SERVER_FAULT_AFTER_S = 2.0
IN_USE_AFTER_S = 1.0


class Fault(Enum):
    """The meaning of an error code."""

    THROTTLED = "throttled"
    SERVER = "server"
    ABSENT = "absent"
    """The named thing does not exist (any more)."""
    IN_USE = "in use"
    """Another resource still depends on this one, or its state is still changing."""
    UNAUTHENTICATED = "unauthenticated"
    """AWS does not know the caller: the credentials are not valid (any more)."""
    EXPIRED = "expired"
    """The caller's temporary credentials were valid, and are not any more."""
    FORBIDDEN = "forbidden"
    NO_CAPACITY = "no capacity"
    """Not this offering, not now. Any other refusal of a launch is a fault of the request."""
    REQUEST = "request"
    """The same request fails again."""


FAULT_OF_CODE: Mapping[str, Fault] = {
    "EC2ThrottledException": Fault.THROTTLED,
    "RequestLimitExceeded": Fault.THROTTLED,
    "RequestThrottled": Fault.THROTTLED,
    "SlowDown": Fault.THROTTLED,
    "Throttling": Fault.THROTTLED,
    "ThrottlingException": Fault.THROTTLED,
    "TooManyRequestsException": Fault.THROTTLED,
    "500": Fault.SERVER,
    "503": Fault.SERVER,
    "InternalError": Fault.SERVER,
    "InternalFailure": Fault.SERVER,
    "RequestTimeout": Fault.SERVER,
    "ServiceUnavailable": Fault.SERVER,
    "ServiceUnavailableException": Fault.SERVER,
    "Unavailable": Fault.SERVER,
    "404": Fault.ABSENT,
    "AWS.SimpleQueueService.NonExistentQueue": Fault.ABSENT,
    "InvalidAMIID.Unavailable": Fault.ABSENT,
    "NoSuchBucket": Fault.ABSENT,
    "NoSuchEntity": Fault.ABSENT,
    "NoSuchHostedZone": Fault.ABSENT,
    "NoSuchKey": Fault.ABSENT,
    "InvalidResourceId": Fault.ABSENT,
    "QueueDoesNotExist": Fault.ABSENT,
    "ConcurrentModificationException": Fault.IN_USE,
    "ConflictException": Fault.IN_USE,
    "DeleteConflict": Fault.IN_USE,
    "DependencyViolation": Fault.IN_USE,
    "EntityTemporarilyUnmodifiable": Fault.IN_USE,
    "HostedZoneNotEmpty": Fault.IN_USE,
    "IncorrectInstanceState": Fault.IN_USE,
    "IncorrectState": Fault.IN_USE,
    "PriorRequestNotComplete": Fault.IN_USE,
    "ResourceConflictException": Fault.IN_USE,
    "ResourceInUse": Fault.IN_USE,
    "ResourceInUseException": Fault.IN_USE,
    "VolumeInUse": Fault.IN_USE,
    "403": Fault.FORBIDDEN,
    "AccessDenied": Fault.FORBIDDEN,
    "AccessDeniedException": Fault.FORBIDDEN,
    "AuthFailure": Fault.UNAUTHENTICATED,
    "ExpiredToken": Fault.EXPIRED,
    "ExpiredTokenException": Fault.EXPIRED,
    "InvalidAccessKeyId": Fault.UNAUTHENTICATED,
    "InvalidClientTokenId": Fault.UNAUTHENTICATED,
    "RequestExpired": Fault.EXPIRED,
    "SignatureDoesNotMatch": Fault.UNAUTHENTICATED,
    "UnrecognizedClientException": Fault.UNAUTHENTICATED,
    "UnauthorizedOperation": Fault.FORBIDDEN,
    "InstanceLimitExceeded": Fault.NO_CAPACITY,
    "InsufficientFreeAddressesInSubnet": Fault.NO_CAPACITY,
    "InsufficientHostCapacity": Fault.NO_CAPACITY,
    "InsufficientInstanceCapacity": Fault.NO_CAPACITY,
    "InvalidFleetConfiguration": Fault.NO_CAPACITY,
    "MaxFleetCountExceeded": Fault.NO_CAPACITY,
    "MaxSpotInstanceCountExceeded": Fault.NO_CAPACITY,
    "SpotMaxPriceTooLow": Fault.NO_CAPACITY,
    "UnfulfillableCapacity": Fault.NO_CAPACITY,
    "Unsupported": Fault.NO_CAPACITY,
    "VcpuLimitExceeded": Fault.NO_CAPACITY,
}

FAULT_OF_SUFFIX: Mapping[str, Fault] = {
    "NotFound": Fault.ABSENT,
    "NotFoundException": Fault.ABSENT,
    ".Unknown": Fault.ABSENT,
    ".InUse": Fault.IN_USE,
}
"""Endings that AWS combines with the name of a resource, as in `InvalidVolume.NotFound`,
`NatGatewayNotFound` and `ResourceNotFoundException`."""

_FIX_CREDENTIALS = "set AWS_PROFILE or AWS_ACCESS_KEY_ID, or run on an instance with a profile"
FIX_EXPIRED = (
    "renew the credentials (aws sso login, or a new session of the role; check the clock of this"
    " machine), then run it again"
)
_FIX_RIGHTS = "check the credentials, or the instance profile's rights; then run it again"

_ERROR_OF_FAULT: Mapping[Fault, Callable[[str, str], CloudError]] = {
    Fault.THROTTLED: lambda what, where: Retryable(what, after_s=THROTTLED_AFTER_S, where=where),
    Fault.SERVER: lambda what, where: Retryable(what, after_s=SERVER_FAULT_AFTER_S, where=where),
    Fault.IN_USE: lambda what, where: Retryable(what, after_s=IN_USE_AFTER_S, where=where),
    Fault.ABSENT: lambda what, where: NotFound(what, where=where),
    Fault.UNAUTHENTICATED: lambda what, where: NotAuthenticated(what, where=where, fix=_FIX_RIGHTS),
    Fault.EXPIRED: lambda what, where: CredentialsExpired(what, where=where, fix=FIX_EXPIRED),
    Fault.FORBIDDEN: lambda what, where: Permanent(what, where=where, fix=_FIX_RIGHTS),
    Fault.NO_CAPACITY: lambda what, where: InsufficientCapacity(what, offering="", where=where),
    Fault.REQUEST: lambda what, where: Permanent(what, where=where),
}


def error_code(error: BaseException | None) -> str:
    """The code of a botocore error, such as `InvalidInstanceID.NotFound`; empty if it has none."""
    if not isinstance(error, ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", ""))


def classify(code: str, status: int = 0) -> Fault:
    """The meaning of an error code, or of the HTTP status if the code is unknown."""
    fault = FAULT_OF_CODE.get(code)
    if fault is None:
        endings = (fault for end, fault in FAULT_OF_SUFFIX.items() if code.endswith(end))
        fault = next(endings, None)
    if fault is None:
        fault = Fault.SERVER if status >= 500 else Fault.REQUEST
    return fault


def no_credentials(where: str) -> NotAuthenticated:
    """The error of a call that has no credentials to be signed with."""
    return NotAuthenticated("no AWS credentials", where=where, fix=_FIX_CREDENTIALS)


def is_absent(error: ClientError) -> bool:
    """Whether AWS says that the named thing does not exist."""
    return classify(error_code(error)) is Fault.ABSENT


def is_forbidden(error: ClientError) -> bool:
    """Whether AWS knows the caller and refuses the call."""
    return classify(error_code(error)) is Fault.FORBIDDEN


def names_expired_credentials(text: str) -> bool:
    """Whether an error text of another program, such as Terraform, has AWS's code for them."""
    codes = (code for code, fault in FAULT_OF_CODE.items() if fault is Fault.EXPIRED)
    return any(code in text for code in codes)


def translate(error: ClientError, where: str) -> CloudError:
    """The error of this project that an error of AWS becomes; `where` names the call or object."""
    code = error_code(error)
    what = f"{code}: {error.response.get('Error', {}).get('Message', '')}".strip()
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return _ERROR_OF_FAULT[classify(code, status)](what, where)


@contextmanager
def translate_errors(where: str) -> Iterator[None]:
    """Translate every error of botocore that the enclosed calls raise; `where` names them.

    Raises:
        Retryable: throttled, a fault of the service, no answer, or a resource still in use.
        NotFound: the named thing does not exist.
        InsufficientCapacity: the offering is sold out.
        CredentialsExpired: temporary credentials have ended.
        NotAuthenticated: credentials are missing or not valid.
        Permanent: a wrong request or a missing right.

    """
    try:
        yield
    except ClientError as error:
        raise translate(error, where) from error
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
        raise no_credentials(where) from error
    except (SSOError, TokenRetrievalError) as error:
        raise CredentialsExpired(str(error), where=where, fix=FIX_EXPIRED) from error
    except (BotoCoreError, ResponseParserError) as error:
        raise Retryable(
            f"no answer from AWS: {error}",
            after_s=SERVER_FAULT_AFTER_S,
            where=where,
            fix="check that the endpoint is reachable",
        ) from error
