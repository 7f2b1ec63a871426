"""The section `frameworks` of cluster.yaml: from where the demand of a framework is read.

Depends on `field_types`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from mesaform.config.field_types import (
    Model,
    Number,
    Problem,
    RoleName,
    Switch,
    raise_problems,
    text_error,
)

AdapterName = Literal["spark", "marathon", "chronos", "metronome", "airflow", "hook", "none"]

_PARAMETER_NAME = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"


def _checked_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise text_error(f"{value!r} is not a URL: {error}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise text_error(f"{value!r} is not a URL such as http://airflow.internal:11000")
    if parts.username is not None or parts.query or parts.fragment:
        raise text_error(f"{value!r} has a user, a query or a fragment; credentials are fields")
    return value.rstrip("/")


def _checked_parameter(value: str) -> str:
    if not 1 <= len(value) <= 64 or not set(value) <= set(_PARAMETER_NAME):
        raise text_error(f"{value!r} is not a name: letters, digits, '_', '.' and '-', at most 64")
    return value


def _checked_file(value: str) -> str:
    if not value.startswith("/") or "\0" in value or len(value) > 512:
        raise text_error(f"{value!r} is not the absolute path of a file on the masters")
    return value


class FrameworkAdapter(Model):
    """From where the demand of frameworks is read. The first entry that matches one counts."""

    name: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="Name of the frameworks; * and ? stand for any characters."
    )
    role: RoleName | None = Field(default=None, description="Or a role of the frameworks.")
    adapter: AdapterName = Field(
        description="spark, marathon, chronos, metronome, airflow, hook; none: do not ask them."
    )
    url: Annotated[str, AfterValidator(_checked_url)] | None = Field(
        default=None, description="URL of the API; without it the framework's webui_url is asked."
    )
    credential_file: Annotated[str, AfterValidator(_checked_file)] | None = Field(
        default=None, description="File on the masters with USER:PASSWORD or Bearer TOKEN."
    )
    credential_parameter: Annotated[str, AfterValidator(_checked_parameter)] | None = Field(
        default=None, description="Or NAME of the parameter /mesaform/CLUSTER/frameworks/NAME."
    )
    credential_to_webui_url: Switch = Field(
        default=False,
        description="Whether the credential is sent to a URL that the framework states itself.",
    )
    timeout_s: Number = Field(
        default=2.0, gt=0, le=30, description="How long a framework may take to answer."
    )
    default_cpus: Number | None = Field(
        default=None, gt=0, description="Cpus of work that states none, for chronos and airflow."
    )
    default_mem_mib: Number | None = Field(default=None, ge=0, description="Its memory in MiB.")
    default_disk_mib: Number | None = Field(default=None, ge=0, description="Its disk in MiB.")

    @property
    def has_credential(self) -> bool:
        """Whether a credential is configured."""
        return self.credential_file is not None or self.credential_parameter is not None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        raise_problems([*self._match_problems(), *self._credential_problems()])
        return self

    def _match_problems(self) -> Iterator[Problem]:
        if (self.name is None) == (self.role is None):
            yield ("name",), "give name or role, and not both"
        if self.adapter == "airflow" and self.url is None:
            yield ("url",), "is needed: Airflow's framework states no webui_url"

    def _credential_problems(self) -> Iterator[Problem]:
        if self.credential_file and self.credential_parameter:
            yield ("credential_file",), "and credential_parameter: give one of them"
        goes_astray = self.url is None and not self.credential_to_webui_url
        if self.has_credential and goes_astray:
            field = "credential_file" if self.credential_file else "credential_parameter"
            message = "would go to an address that the framework chooses"
            yield (field,), f"{message}; set url, or credential_to_webui_url: true"
