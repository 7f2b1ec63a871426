"""Common parts of the kinds of EC2: listing by a filter on the tag, deletion by an id.

The kinds themselves are in `ec2_instances`, `ec2_network` and `ec2_storage`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from mesaform.aws.resources.kind import Raw, Resources, TaggedKind, tag_map
from mesaform.aws.resources.owned import OwnedResource, is_ours
from mesaform.topology.names import Tag

Raws = list[Raw]

GONE_STATES = frozenset({"deleted", "deleting", "cancelled", "closed", "failed"})
"""States in which EC2 still lists a resource that exists no more, or that is about to vanish."""


class Ec2Kind(TaggedKind):
    """A kind that EC2 lists by tag.

    Attributes:
        operation: the call that lists it; `result` is the field of its answer.
        id_key: the field of an item, and the argument of `removal`, that holds the id.
        removal: the call that deletes one by its id, if nothing else is needed.
        tags_key: the field of an item that holds its tags.
        filter_argument: the argument of `operation` that takes filters.
        ownership: further arguments of `operation`, where it would list what is public as well.

    """

    service = "ec2"
    operation: ClassVar[str]
    result: ClassVar[str]
    id_key: ClassVar[str]
    removal: ClassVar[str] = ""
    tags_key: ClassVar[str] = "Tags"
    filter_argument: ClassVar[str] = "Filters"
    ownership: ClassVar[Mapping[str, Sequence[str]]] = {}

    def list(self) -> Resources:
        """See `registry.ResourceKind.list`."""
        return [self._owned(raw) for raw in self._raw() if self._is_listed(raw)]

    def _remove(self, resource: OwnedResource) -> None:
        self._call(self.removal, resource.id, **{self.id_key: resource.id})

    def _raw(self) -> Iterator[Raw]:
        filters = [{"Name": f"tag:{Tag.CLUSTER}", "Values": [self._cluster]}]
        arguments = {self.filter_argument: filters, **self.ownership}
        for page in self._pages(self.operation, **arguments):
            yield from self._items(page)

    def _items(self, page: Raw) -> Raws:
        return [*page.get(self.result, ())]

    def _lookup(self, resource_id: str, ids_argument: str) -> Raws:
        """Describe one resource by its id; an empty list if EC2 does not know it."""
        return self._items(self._call(self.operation, resource_id, **{ids_argument: [resource_id]}))

    def _is_listed(self, raw: Raw) -> bool:
        return is_ours(tag_map(raw.get(self.tags_key)), self._cluster) and self._exists(raw)

    def _exists(self, raw: Raw) -> bool:
        """Whether it exists and can be deleted by itself."""
        return raw.get("State") not in GONE_STATES

    def _owned(self, raw: Raw) -> OwnedResource:
        tags = tag_map(raw.get(self.tags_key))
        return OwnedResource(self.kind, str(raw[self.id_key]), tags, **self._details(raw))

    def _details(self, _raw: Raw) -> Raw:
        """The known ones of `detail`, `usd_per_hour` and `deleted_with_instance`."""
        return {}
