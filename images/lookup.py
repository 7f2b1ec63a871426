"""Images by the digest of their recipe: the one that this checkout needs, and those of a region."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesaform.common.architecture import X86_64, Architecture
from mesaform.common.errors import MissingPrerequisite
from mesaform.topology.names import Tag
from mesaform_images import bundle

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, ImageTypeDef


def recipe_digest() -> str:
    """Return the digest of what this checkout bakes (`bundle.Sources.digest`). No network.

    Raises:
        MissingPrerequisite: this program does not run from a checkout.
        BadInput: images/recipe.toml cannot be read.

    """
    return bundle.read_sources(bundle.installed_layout()).digest()


def find_image(recipe: str, region: str, architecture: Architecture = X86_64) -> ImageTypeDef:
    """Return the newest available image of a recipe for an architecture.

    Raises:
        MissingPrerequisite: there is none; the message names `mesaform bake`.
        CloudError: EC2 refused or did not answer.

    """
    images = images_of(recipe, region, architecture)
    if not images:
        raise MissingPrerequisite(
            f"no {architecture} image is baked from this checkout's recipe ({recipe})",
            where=region,
            fix="bake one, then go on: mesaform bake",
        )
    return images[0]


def images_of(recipe: str, region: str, architecture: Architecture = X86_64) -> list[ImageTypeDef]:
    """Return the available images of a recipe for an architecture, newest first.

    Raises:
        CloudError: EC2 refused or did not answer.

    """
    from mesaform.aws import client
    from mesaform.aws.errors import translate_errors

    filters: list[FilterTypeDef] = [
        {"Name": f"tag:{Tag.RECIPE}", "Values": [recipe]},
        {"Name": "state", "Values": ["available"]},
        {"Name": "architecture", "Values": [architecture]},
    ]
    with translate_errors("ec2 DescribeImages"):
        ec2 = client.client("ec2", region)
        images: list[ImageTypeDef] = ec2.describe_images(Owners=["self"], Filters=filters)["Images"]
    return sorted(images, key=lambda image: str(image.get("CreationDate", "")), reverse=True)
