"""Where an image's bill of materials is kept: in the account's bucket, by the image's id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesaform.common.errors import MissingPrerequisite, NotFound

if TYPE_CHECKING:
    from mesaform.common.architecture import Architecture

MATERIALS = "sbom.cdx.json"
"""Its name among a bake's objects. The file in the image is `/opt/mesaform/sbom.cdx.json`."""
PREFIX = "images/"


def materials_key(image_id: str) -> str:
    """The object of an image's bill. It outlives the image."""
    return f"{PREFIX}{image_id}.cdx.json"


def read_materials(region: str, recipe: str, architecture: Architecture) -> bytes:
    """The bill of the newest image of a recipe: CycloneDX in JSON. Blocks.

    Raises:
        MissingPrerequisite: there is no image, or it has no bill.
        CloudError: AWS refused or did not answer.

    """
    from mesaform.aws import client
    from mesaform.aws.errors import translate_errors
    from mesaform_images.lookup import find_image

    image_id = find_image(recipe, region, architecture)["ImageId"]
    name, key = client.account_bucket(region), materials_key(image_id)
    try:
        with translate_errors(f"s3://{name}/{key}"):
            answer = client.client("s3", region).get_object(Bucket=name, Key=key)
            return bytes(answer["Body"].read())
    except NotFound:
        raise MissingPrerequisite(
            f"image {image_id} has no bill of materials",
            where=f"s3://{name}/{key}",
            fix="it was not baked by this version: mesaform bake --force",
        ) from None
