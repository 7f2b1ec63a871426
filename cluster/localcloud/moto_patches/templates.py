"""Launch templates: a template's own tags are not part of what it launches. moto writes them into the data of the first version."""

from __future__ import annotations

from typing import Any

from moto.ec2.models.launch_templates import LaunchTemplate

_moto_init = LaunchTemplate.__init__
OWN_KIND = "launch-template"


def _init(
    self: LaunchTemplate,
    backend: Any,
    name: str,
    template_data: dict[str, Any],
    version_description: str,
    tag_spec: dict[str, dict[str, str]],
) -> None:
    launched = [
        entry
        for entry in template_data.get("TagSpecifications") or []
        if entry.get("ResourceType") != OWN_KIND
    ]
    data = {key: value for key, value in template_data.items() if key != "TagSpecifications"}
    _moto_init(
        self,
        backend,
        name,
        {**data, "TagSpecifications": launched} if launched else data,
        version_description,
        tag_spec,
    )


def apply() -> None:
    LaunchTemplate.__init__ = _init
