"""An AWS call as it arrived over HTTP. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote


@dataclass(frozen=True, slots=True)
class AwsRequest:
    """One request, whole.

    Attributes:
        target: path and query as they were sent, not decoded.
        headers: name and value pairs in the order in which they were sent.

    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    _values: Mapping[str, tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        values: dict[str, tuple[str, ...]] = {}
        for name, value in self.headers:
            key = name.lower()
            values[key] = (*values.get(key, ()), value)
        object.__setattr__(self, "_values", values)

    def header(self, name: str) -> str:
        """The header's value, several joined by commas; empty if there is none."""
        return ",".join(self._values.get(name.lower(), ()))

    def has_header(self, name: str) -> bool:
        """Whether the header was sent."""
        return name.lower() in self._values

    @property
    def raw_path(self) -> str:
        """The path as it was sent."""
        return self.target.partition("?")[0] or "/"

    @property
    def path(self) -> str:
        """The path, decoded; bytes that are not UTF-8 are replaced."""
        return unquote(self.raw_path)

    @property
    def query_string(self) -> str:
        """The query as it was sent, without the question mark."""
        return self.target.partition("?")[2]

    @property
    def query(self) -> list[tuple[str, str]]:
        """The query's names and values, decoded, with empty ones."""
        return parse_qsl(self.query_string, keep_blank_values=True)

    def query_value(self, name: str) -> str:
        """The first value of a query parameter; empty if there is none."""
        return next((value for key, value in self.query if key == name), "")
