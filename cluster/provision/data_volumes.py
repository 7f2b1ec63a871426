"""Whether a plan would lose the data on masters' volumes. Pure.

Terraform's `prevent_destroy` would also stop `cdktf destroy`, so a deployment checks its plan
itself (docs/adr/0032).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mesaform.common.json_types import JsonObject, as_list, as_object

KIND = "aws_ebs_volume"


def find_losses(plans: Iterable[JsonObject]) -> Iterator[str]:
    """A phrase for each volume that plans (`terraform show -json`) delete, replace or shrink."""
    for plan in plans:
        for resource in map(as_object, as_list(plan.get("resource_changes"))):
            if resource.get("type") == KIND and (loss := _loss(resource)):
                yield loss


def _loss(resource: JsonObject) -> str:
    change, address = as_object(resource.get("change")), str(resource.get("address", ""))
    before, after = as_object(change.get("before")), as_object(change.get("after"))
    actions = as_list(change.get("actions"))
    if "delete" in actions:
        paths = [".".join(map(str, as_list(path))) for path in as_list(change.get("replace_paths"))]
        verb = "replaced" if "create" in actions else "deleted"
        return f"{address} would be {verb}" + (f" ({', '.join(paths)})" if paths else "")
    sizes = before.get("size"), after.get("size")
    if all(isinstance(size, int) for size in sizes) and int(str(sizes[1])) < int(str(sizes[0])):
        return f"{address} would shrink from {sizes[0]} to {sizes[1]} GiB"
    return ""
