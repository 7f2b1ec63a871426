"""Base class of the resource kinds, and calls of botocore clients with translated errors.

Depends on `aws.errors` and on the values in `owned`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from mesaform.aws.errors import translate_errors
from mesaform.aws.resources.owned import OwnedResource
from mesaform.common.errors import NotFound

NAME_PREFIX = "mesaform"
"""Start of every name that the stacks give. Services without a filter by tag are searched by it."""

Item = TypeVar("Item")
Raw = dict[str, Any]
"""A part of an answer of AWS."""

Resources = list[OwnedResource]
"""An alias for use in classes whose method `list` hides the builtin."""


def call(client: Any, operation: str, where: str, **arguments: object) -> Raw:
    """Make one call with translated errors (`aws.errors.translate_errors`)."""
    with translate_errors(where):
        answer: Raw = getattr(client, operation)(**arguments)
    return answer


def pages(client: Any, operation: str, where: str, **arguments: object) -> Iterator[Raw]:
    """Yield all pages of a list, with translated errors."""
    if not client.can_paginate(operation):
        yield call(client, operation, where, **arguments)
        return
    with translate_errors(where):
        yield from client.get_paginator(operation).paginate(**arguments)


def tag_map(tags: Sequence[Mapping[str, str]] | None) -> dict[str, str]:
    """Convert AWS's list of `Key` and `Value` into a dict."""
    return {item["Key"]: item["Value"] for item in tags or ()}


def string_map(tags: Mapping[str, object]) -> dict[str, str]:
    """Convert the tags of services that answer with a mapping."""
    return {str(key): str(value) for key, value in tags.items()}


def in_batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Parts of up to `size` items, in order."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


class TaggedKind(ABC):
    """Common parts of all kinds. A subclass names its service and implements `list` and `_remove`.

    Args:
        client: the botocore client of the service.
        cluster: the name of the cluster.
        region: the region of the cluster, for services that have none.

    """

    kind: ClassVar[str]
    service: ClassVar[str]
    depends_on: ClassVar[tuple[str, ...]] = ()
    batch_size: ClassVar[int] = 1

    def __init__(self, client: Any, cluster: str, region: str = "") -> None:
        self._client = client
        self._cluster = cluster
        self._region = region

    @abstractmethod
    def list(self) -> Resources:
        """See `registry.ResourceKind.list`."""

    @abstractmethod
    def _remove(self, resource: OwnedResource) -> None:
        """Request the deletion; `NotFound` may be raised."""

    def describe(self, resource: OwnedResource) -> str:
        """See `registry.ResourceKind.describe`."""
        parts = [resource.kind, resource.id]
        if resource.name != resource.id:
            parts.append(f"({resource.name})")
        return " ".join([*parts, resource.detail]).rstrip()

    def remove(self, resource: OwnedResource) -> None:
        """See `registry.ResourceKind.remove`."""
        try:
            self._remove(resource)
        except NotFound:
            return

    def remove_batch(self, resources: Sequence[OwnedResource]) -> None:
        """See `registry.ResourceKind.remove_batch`."""
        for resource in resources:
            self.remove(resource)

    def _call(self, operation: str, subject: str, **arguments: object) -> Raw:
        return call(self._client, operation, f"{operation} {subject}", **arguments)

    def _pages(self, operation: str, **arguments: object) -> Iterator[Raw]:
        return pages(self._client, operation, f"list each {self.kind}", **arguments)
