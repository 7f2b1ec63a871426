"""The image that the machines boot: looked up before Terraform runs, passed in the environment.

A cluster must come down even when its image is gone, so `mesaform down` passes a placeholder.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from mesaform.common.errors import MissingPrerequisite

IMAGE_ID = "MESAFORM_IMAGE_ID"
ROOT_DEVICE = "MESAFORM_ROOT_DEVICE"
RECIPE = "MESAFORM_RECIPE"
USUAL_ROOT_DEVICE = "/dev/xvda"


@dataclass(frozen=True, slots=True)
class BootImage:
    """An image, its own name for its disk, and the digest of the recipe it was baked from."""

    image_id: str
    root_device: str
    recipe: str

    def environment(self) -> dict[str, str]:
        """What tells the stacks about it."""
        return {IMAGE_ID: self.image_id, ROOT_DEVICE: self.root_device, RECIPE: self.recipe}


NOTHING_TO_BOOT = BootImage("ami-00000000000000000", USUAL_ROOT_DEVICE, "none")


def from_environment(region: str) -> BootImage:
    """The image that the environment names, or the one baked from this program's recipe.

    A `cdktf destroy` on the command line gets the placeholder: a cluster must come down even when
    its image is gone.
    """
    image_id = os.environ.get(IMAGE_ID)
    if not image_id:
        return NOTHING_TO_BOOT if destroys() else look_up(region)
    return BootImage(
        image_id,
        os.environ.get(ROOT_DEVICE) or USUAL_ROOT_DEVICE,
        os.environ.get(RECIPE) or _recipe(),
    )


def destroys() -> bool:
    """Whether this program runs for `cdktf destroy`.

    cdktf does not pass its verb to the app, but it is an ancestor of this process.
    """
    for ancestor in psutil.Process().parents():
        with suppress(psutil.Error):
            words = ancestor.cmdline()[:4]
            if "destroy" in words and any(Path(word).name == "cdktf" for word in words):
                return True
    return False


def look_up(region: str) -> BootImage:
    """The image baked from this checkout's recipe.

    Raises:
        MissingPrerequisite: there is none in this region; it names `mesaform bake`.
        CloudError: the cloud did not say.

    """
    from mesaform.aws.client import client
    from mesaform.aws.errors import translate_errors
    from mesaform_images.lookup import find_image

    recipe = _recipe()
    image_id = find_image(recipe, region)
    with translate_errors(f"image {image_id}"):
        images = client("ec2", region).describe_images(ImageIds=[image_id])["Images"]
    if not images:
        raise MissingPrerequisite(
            f"image {image_id} is gone", where=region, fix="bake it again: mesaform bake"
        )
    return BootImage(image_id, images[0].get("RootDeviceName") or USUAL_ROOT_DEVICE, recipe)


def look_up_or_placeholder(region: str) -> BootImage:
    """The image of this checkout's recipe, or the placeholder: for runs that boot no machine."""
    try:
        return look_up(region)
    except MissingPrerequisite:
        return NOTHING_TO_BOOT


def _recipe() -> str:
    from mesaform_images.lookup import recipe_digest

    return recipe_digest()
