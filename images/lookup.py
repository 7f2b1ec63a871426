"""Images by the digest of their recipe: which one this checkout wants, and which one the region has."""

from __future__ import annotations

from typing import Any

from mesaform.common.errors import MissingPrerequisite
from mesaform.topology.names import Tag
from mesaform_images import bundle


def recipe_digest() -> str:
    """The digest of what this checkout would bake: wheel sources, locks, recipe and builder. No network.

    Raises:
        MissingPrerequisite: this program does not run from a checkout.
        BadInput: images/recipe.toml cannot be read.

    """
    return bundle.read_sources(bundle.installed_layout()).digest()


def find_image(recipe: str, region: str) -> str:
    """The id of the newest available image of this recipe.

    Raises:
        MissingPrerequisite: there is none; the message names `mesaform bake`.
        CloudError: EC2 did not say.

    """
    found = images_of(recipe, region)
    if not found:
        raise MissingPrerequisite(
            f"no image is baked from this checkout's recipe ({recipe})",
            where=region,
            fix="bake one, then go on: mesaform bake",
        )
    return str(found[0]["ImageId"])


def images_of(recipe: str, region: str) -> list[dict[str, Any]]:
    """Our available images of a recipe, newest first, as EC2 describes them.

    Raises:
        CloudError: EC2 did not say.

    """
    from mesaform.aws import client
    from mesaform.aws.errors import translate_errors

    filters = [
        {"Name": f"tag:{Tag.RECIPE}", "Values": [recipe]},
        {"Name": "state", "Values": ["available"]},
    ]
    with translate_errors("ec2 DescribeImages"):
        found: list[dict[str, Any]] = client.client("ec2", region).describe_images(
            Owners=["self"], Filters=filters
        )["Images"]
    return sorted(found, key=lambda image: str(image.get("CreationDate", "")), reverse=True)
