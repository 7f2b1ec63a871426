"""Launch templates: a template's own tags are not part of what it launches.

moto writes them into the data of the first version.
"""

from __future__ import annotations

from moto.ec2.models.launch_templates import LaunchTemplate

from mesaform.localcloud.moto_patches.moto_types import Ec2Backend, Parameters, Tags

_moto_init = LaunchTemplate.__init__
TEMPLATE_RESOURCE = "launch-template"


def _init(
    self: LaunchTemplate,
    backend: Ec2Backend,
    name: str,
    template_data: Parameters,
    version_description: str,
    tag_spec: dict[str, Tags],
) -> None:
    launched = [
        entry
        for entry in template_data.get("TagSpecifications") or []
        if entry.get("ResourceType") != TEMPLATE_RESOURCE
    ]
    data = {key: value for key, value in template_data.items() if key != "TagSpecifications"}
    if launched:
        data["TagSpecifications"] = launched
    _moto_init(self, backend, name, data, version_description, tag_spec)


def apply() -> None:
    """Patch moto in this process."""
    LaunchTemplate.__init__ = _init
