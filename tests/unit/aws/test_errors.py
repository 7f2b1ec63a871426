"""Every error code of AWS has one translation."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from botocore.parsers import ResponseParserError

from mesaform.aws.errors import (
    FAULT_OF_CODE,
    FAULT_OF_SUFFIX,
    IN_USE_AFTER_S,
    SERVER_FAULT_AFTER_S,
    THROTTLED_AFTER_S,
    Fault,
    classify,
    error_code,
    is_absent,
    translate_errors,
)
from mesaform.common.errors import (
    CredentialsExpired,
    InsufficientCapacity,
    NotAuthenticated,
    NotFound,
    Permanent,
    Retryable,
)

ERROR_TYPE: dict[Fault, type[Exception]] = {
    Fault.THROTTLED: Retryable,
    Fault.SERVER: Retryable,
    Fault.IN_USE: Retryable,
    Fault.ABSENT: NotFound,
    Fault.FORBIDDEN: Permanent,
    Fault.NO_CAPACITY: InsufficientCapacity,
    Fault.REQUEST: Permanent,
    Fault.UNAUTHENTICATED: NotAuthenticated,
    Fault.EXPIRED: CredentialsExpired,
}


def client_error(code: str, status: int = 400) -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": "the message"},
            "ResponseMetadata": {
                "HTTPStatusCode": status,
                "RequestId": "r",
                "HostId": "",
                "HTTPHeaders": {},
                "RetryAttempts": 0,
            },
        },
        "Any",
    )


def translation_of(code: str, status: int = 400) -> Exception:
    with pytest.raises(Exception) as caught, translate_errors("ec2 Any"):  # noqa: PT011 - any type
        raise client_error(code, status)
    return caught.value


@pytest.mark.parametrize(("code", "fault"), sorted(FAULT_OF_CODE.items()))
def test_each_code_of_the_table_is_translated(code: str, fault: Fault) -> None:
    error = translation_of(code)
    assert type(error) is ERROR_TYPE[fault]
    assert str(error).startswith(f"ec2 Any: {code}: the message")


@pytest.mark.parametrize(("ending", "fault"), sorted(FAULT_OF_SUFFIX.items()))
def test_each_ending_is_translated(ending: str, fault: Fault) -> None:
    assert type(translation_of(f"InvalidThing{ending}")) is ERROR_TYPE[fault]


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("RequestLimitExceeded", 503, Retryable),
        ("SlowDown", 503, Retryable),
        ("InternalError", 500, Retryable),
        ("SomethingNew", 502, Retryable),
        ("DependencyViolation", 400, Retryable),
        ("InvalidGroup.InUse", 400, Retryable),
        ("InvalidInstanceID.NotFound", 400, NotFound),
        ("InvalidLaunchTemplateName.NotFoundException", 400, NotFound),
        ("NatGatewayNotFound", 400, NotFound),
        ("ResourceNotFoundException", 400, NotFound),
        ("ParameterNotFound", 400, NotFound),
        ("NoSuchKey", 404, NotFound),
        ("InsufficientInstanceCapacity", 500, InsufficientCapacity),
        ("UnauthorizedOperation", 403, Permanent),
        ("InvalidParameterValue", 400, Permanent),
        ("", 400, Permanent),
    ],
)
def test_a_code_decides_before_the_status(
    code: str, status: int, expected: type[Exception]
) -> None:
    error = translation_of(code, status)
    assert type(error) is expected
    assert getattr(error, "where", "") == "ec2 Any"


@pytest.mark.parametrize(
    ("code", "after_s"),
    [
        ("Throttling", THROTTLED_AFTER_S),
        ("InternalError", SERVER_FAULT_AFTER_S),
        ("DeleteConflict", IN_USE_AFTER_S),
    ],
)
def test_a_retryable_error_says_when_to_try_again(code: str, after_s: float) -> None:
    assert getattr(translation_of(code), "after_s", None) == after_s


def test_a_missing_right_says_what_to_check() -> None:
    assert "rights" in getattr(translation_of("AccessDenied"), "fix", "")


@pytest.mark.parametrize(
    "error",
    [EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), ResponseParserError("no XML")],
)
def test_a_call_without_an_answer_may_be_tried_again(error: Exception) -> None:
    with pytest.raises(Retryable, match="no answer from AWS"), translate_errors("ec2 Any"):
        raise error


def test_missing_credentials_name_the_environment_variable() -> None:
    with pytest.raises(Permanent, match="AWS_PROFILE"), translate_errors("ec2 Any"):
        raise NoCredentialsError


def test_the_code_of_anything_but_a_client_error_is_empty() -> None:
    assert error_code(None) == ""
    assert error_code(ValueError()) == ""
    assert error_code(client_error("NoSuchKey")) == "NoSuchKey"


def test_absence_is_recognized_by_code() -> None:
    assert is_absent(client_error("NoSuchBucket"))
    assert not is_absent(client_error("AccessDenied"))


def test_an_unknown_code_is_a_fault_of_the_request_unless_the_status_says_otherwise() -> None:
    assert classify("SomethingNew") is Fault.REQUEST
    assert classify("SomethingNew", 503) is Fault.SERVER
