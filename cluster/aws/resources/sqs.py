"""Queues of SQS."""

from __future__ import annotations

from mesaform.aws.resources.kind import NAME_PREFIX, Resources, TaggedKind, string_map
from mesaform.aws.resources.owned import OwnedResource, is_ours
from mesaform.aws.resources.registry import register
from mesaform.common.errors import NotFound


@register
class Queues(TaggedKind):
    kind = "queue"
    service = "sqs"
    depends_on = ("event rule",)  # a rule would send to a queue that does not exist

    def list(self) -> Resources:
        """List the queues; AWS lists a deleted queue for up to 60 s."""
        prefix = f"{NAME_PREFIX}-{self._cluster}-"
        listed = (
            (url, self._tags(url))
            for page in self._pages("list_queues", QueueNamePrefix=prefix)
            for url in page.get("QueueUrls", ())
        )
        return [
            OwnedResource(self.kind, url, tags)
            for url, tags in listed
            if is_ours(tags, self._cluster)
        ]

    def _tags(self, url: str) -> dict[str, str]:
        try:
            answer = self._call("list_queue_tags", url, QueueUrl=url)
        except NotFound:  # deleted since it was listed
            return {}
        return string_map(answer.get("Tags", {}))

    def _remove(self, resource: OwnedResource) -> None:
        self._call("delete_queue", resource.id, QueueUrl=resource.id)
