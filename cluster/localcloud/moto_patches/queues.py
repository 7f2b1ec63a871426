"""The form in which SQS returns a queue's attributes, which moto differs from.

SQS returns policies as JSON without spaces (SQS API reference, GetQueueAttributes). Terraform
compares the text: with spaces every plan would change a queue that has a redrive policy.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from moto.sqs.models import Queue

if TYPE_CHECKING:
    from mesaform.common.json_types import JsonObject

_moto_attributes = Queue.attributes


def _attributes(self: Queue) -> JsonObject:
    attributes: JsonObject = dict(_moto_attributes.__get__(self))
    if self.redrive_policy:
        attributes["RedrivePolicy"] = json.dumps(self.redrive_policy, separators=(",", ":"))
    return attributes


def apply() -> None:
    """Patch moto in this process."""
    Queue.attributes = property(_attributes)
