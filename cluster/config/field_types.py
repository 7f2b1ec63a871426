"""Types of the fields of cluster.yaml, the base class of its models, and their errors. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Network
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Strict, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from mesaform.common.durations import parse_duration_s
from mesaform.common.errors import BadInput

FieldPath = tuple[str | int, ...]
"""Names of fields and indices of lists that lead to a value."""

Problem = tuple[FieldPath, str]
"""A field and what is wrong with it."""


def _pattern(pattern: str, description: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise text_error(f"{value!r} is not {description}")
        return value

    return AfterValidator(check)


def _network(value: str) -> str:
    try:
        IPv4Network(value)
    except ValueError as error:
        raise text_error(f"{error}; a network looks like 10.42.0.0/16") from None
    if "/" not in value:
        raise text_error(f"{value} has no prefix length; one address is {value}/32")
    return value


def text_error(message: str) -> PydanticCustomError:
    """Return an error whose text is shown as it is."""
    return PydanticCustomError("text", "{message}", {"message": message})


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise one `ValidationError` with all problems; do nothing if there are none.

    The paths are relative to the model that is validated; pydantic adds where the model is.
    """
    if problems:
        raise ValidationError.from_exception_data(
            "spec",
            [
                InitErrorDetails(type=text_error(message), loc=path, input=None)
                for path, message in problems
            ],
        )


def repeated(names: Sequence[str]) -> list[str]:
    """Return the names that occur more than once, sorted."""
    return sorted({name for name in names if names.count(name) > 1})


Name = Annotated[
    str,
    _pattern(
        r"[a-z]([a-z0-9-]{0,22}[a-z0-9])?",
        "a name: lower-case letters, digits and hyphens, at most 24, "
        "a letter first, no hyphen last",
    ),
]
InstanceType = Annotated[
    str, _pattern(r"[a-z][a-z0-9-]*\.[a-z0-9-]+", "an instance type, such as m5.large")
]
KmsKey = Annotated[
    str,
    _pattern(
        r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]{1,250}",
        "the ARN of a KMS key or alias, such as arn:aws:kms:us-east-1:123456789012:alias/mesos",
    ),
]
KeyArn = Annotated[
    str,
    _pattern(
        r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]{1,250}",
        "the ARN of a KMS key (rights cannot name an alias),"
        " such as arn:aws:kms:us-east-1:123456789012:key/0123abcd",
    ),
]
IamPath = Annotated[
    str, _pattern(r"/([!-.0-~]+/)*", "a path of IAM: / or /team/, with a slash at both ends")
]
PolicyArn = Annotated[
    str,
    _pattern(
        r"arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/[A-Za-z0-9+=,.@/_-]+",
        "the ARN of a policy, such as arn:aws:iam::123456789012:policy/boundary",
    ),
]
SubnetId = Annotated[
    str, _pattern(r"subnet-[0-9a-f]{8,17}", "a subnet's id, such as subnet-0123456789abcdef0")
]
UserName = Annotated[
    str, _pattern(r"[a-z_][a-z0-9_-]{0,31}", "a user's name, such as nobody (useradd(8))")
]
Principal = Annotated[
    str, _pattern(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,127}", "a principal's name, such as spark")
]
RoleName = Annotated[
    str,
    _pattern(
        r"\*|[A-Za-z0-9_][A-Za-z0-9_./-]{0,254}", "a role's name of Mesos, such as analytics or *"
    ),
]
Region = Annotated[str, _pattern(r"[a-z]{2}(-[a-z]+)+-\d", "a region, such as us-east-1")]
AttributeName = Annotated[
    str,
    _pattern(
        r"[A-Za-z_][A-Za-z0-9_./-]*",
        "an attribute's name: letters, digits, '_', '.', '/' and '-', a letter first",
    ),
]
AttributeValue = Annotated[
    str,
    _pattern(r"[A-Za-z0-9_./-]+", "an attribute's value: letters, digits, '_', '.', '/' and '-'"),
]
HostName = Annotated[
    str,
    _pattern(
        r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?",
        "a host's name or address without a port, such as mesos.example.com",
    ),
]
CertificateArn = Annotated[
    str,
    _pattern(
        r"arn:aws(-[a-z]+)*:acm:[a-z0-9-]+:\d{12}:certificate/[A-Za-z0-9-]+",
        "the ARN of a certificate: arn:aws:acm:<region>:<account>:certificate/<id>",
    ),
]
TTL_LIMITS_S = (600.0, 31 * 86400.0)


def _time_to_live(value: str) -> str:
    try:
        length_s = parse_duration_s(value)
    except BadInput:
        raise text_error(f"{value!r} is no duration; write 30m, 8h or 2d") from None
    if not TTL_LIMITS_S[0] <= length_s <= TTL_LIMITS_S[1]:
        raise text_error(f"{value} must be at least 10 minutes and at most 31 days")
    return value


Ttl = Annotated[str, AfterValidator(_time_to_live)]
Cidr = Annotated[str, AfterValidator(_network)]
Whole = Annotated[int, Strict()]
"""A whole number; neither "2" nor true is one."""
Number = Annotated[float, Strict()]
Switch = Annotated[bool, Strict()]


class Model(BaseModel):
    """Base class: unknown fields are errors, values are frozen, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
