"""Registry of resource kinds and the order of deletion that their dependencies imply.

A module of this package registers a kind with `@register`. The registry imports every module of
the package on first use, so that a new service needs one new file and no other change.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from graphlib import TopologicalSorter
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from mesaform.aws.resources.owned import OwnedResource

if TYPE_CHECKING:  # the registry loads botocore only when the kinds are needed
    from mesaform.aws.resources.kind import TaggedKind


class ResourceKind(Protocol):
    """One kind of resource: how it is listed and how one of it is deleted. Calls block.

    `depends_on` names the kinds that have to be deleted before this one. One call deletes up to
    `batch_size` resources.
    """

    kind: ClassVar[str]
    service: ClassVar[str]
    depends_on: ClassVar[tuple[str, ...]]
    batch_size: ClassVar[int]

    def list(self) -> list[OwnedResource]:
        """List all of this kind that carry the cluster's tag. May lag a change by seconds.

        Raises:
            Retryable: throttled, or a fault of the service.
            Permanent: the right to list is missing.

        """
        ...

    def describe(self, resource: OwnedResource) -> str:
        """Describe a resource in one line for people."""
        ...

    def remove(self, resource: OwnedResource) -> None:
        """Request the deletion of a resource, its attachments first.

        Idempotent: a resource that does not exist is no error.

        Raises:
            Retryable: another resource depends on it, or the service is busy.
            Permanent: it cannot be deleted; the message gives the reason.

        """
        ...

    def remove_batch(self, resources: Sequence[OwnedResource]) -> None:
        """Request the deletion of up to `batch_size` resources, in one call if it is above 1.

        Raises:
            Retryable: as for `remove`.
            NotFound, Permanent: EC2 refused the call as a whole; nothing was requested.

        """
        ...


_registered: dict[str, type[TaggedKind]] = {}

KindClass = TypeVar("KindClass", bound="type[TaggedKind]")


def register(kind_class: KindClass) -> KindClass:
    """Add a class to the registry. To be used as a decorator.

    Raises:
        ValueError: another class has the same kind.

    """
    if kind_class.kind in _registered:
        raise ValueError(f"two classes are registered for {kind_class.kind!r}")
    _registered[kind_class.kind] = kind_class
    return kind_class


@lru_cache(maxsize=1)
def registered_kinds() -> Mapping[str, type[TaggedKind]]:
    """All registered classes by kind, in the order of deletion."""
    package = importlib.import_module(__package__)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    order = deletion_order({kind: entry.depends_on for kind, entry in _registered.items()})
    return MappingProxyType({kind: _registered[kind] for kind in order})


def deletion_order(dependencies: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """Sort kinds so that each follows all that it depends on; equal ranks are in alphabetic order.

    Args:
        dependencies: for each kind the kinds that have to be deleted before it.

    Raises:
        ValueError: a kind depends on one that does not exist.
        graphlib.CycleError: kinds depend on each other.

    """
    for kind, required in dependencies.items():
        if unknown := sorted(set(required) - set(dependencies)):
            raise ValueError(f"{kind!r} depends on unknown kinds: {', '.join(unknown)}")
    sorter = TopologicalSorter(dependencies)
    sorter.prepare()
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order += ready
        sorter.done(*ready)
    return tuple(order)


def deletion_rank(kind: str) -> int:
    """Position of a kind in the order of deletion; -1 (first) for a kind that is not registered."""
    order = tuple(registered_kinds())
    return order.index(kind) if kind in order else -1


def in_deletion_order(resources: Iterable[OwnedResource]) -> list[OwnedResource]:
    """Sort resources so that they can be deleted one after the other."""
    return sorted(resources, key=lambda resource: (deletion_rank(resource.kind), resource.id))


def count_by_kind(resources: Iterable[OwnedResource]) -> dict[str, int]:
    """Count resources by kind; the keys are in the order of deletion."""
    counts: dict[str, int] = {}
    for resource in in_deletion_order(resources):
        counts[resource.kind] = counts.get(resource.kind, 0) + 1
    return counts
