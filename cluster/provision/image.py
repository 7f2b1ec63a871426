"""The images that the machines boot: looked up before Terraform runs, passed in the environment.

A cluster must come down even when its images are gone, so `mesaform down` passes placeholders.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from mesaform.common.architecture import ARCHITECTURES, X86_64, Architecture
from mesaform.common.errors import MissingPrerequisite

if TYPE_CHECKING:
    from mesaform.config.schema import ClusterSpec

IMAGE_ID = "MESAFORM_IMAGE_ID"
ROOT_DEVICE = "MESAFORM_ROOT_DEVICE"
RECIPE = "MESAFORM_RECIPE"
UPGRADED_ROLES = "MESAFORM_UPGRADED_ROLES"
"""Variable: roles, separated by commas, whose running machines take the image (ADR 0037)."""
USUAL_ROOT_DEVICE = "/dev/xvda"


@dataclass(frozen=True, slots=True)
class BootImage:
    """An image, and its own name for its disk."""

    image_id: str
    root_device: str


@dataclass(frozen=True, slots=True)
class BootImages:
    """The images of a cluster by architecture, and the digest of the recipe they are baked from."""

    by_architecture: Mapping[Architecture, BootImage]
    recipe: str

    def environment(self) -> dict[str, str]:
        """What tells the stacks about them."""
        variables = {RECIPE: self.recipe}
        for architecture, image in self.by_architecture.items():
            variables[_variable(IMAGE_ID, architecture)] = image.image_id
            variables[_variable(ROOT_DEVICE, architecture)] = image.root_device
        return variables

    def of(self, architecture: Architecture) -> BootImage:
        """The image of an architecture.

        Raises:
            MissingPrerequisite: there is none.

        """
        if architecture not in self.by_architecture:
            raise MissingPrerequisite(
                f"no {architecture} image is known",
                where=_variable(IMAGE_ID, architecture),
                fix="bake one, then go on: mesaform bake",
            )
        return self.by_architecture[architecture]


def _variable(name: str, architecture: Architecture) -> str:
    """A variable's name; x86_64 has no suffix."""
    return name if architecture == X86_64 else f"{name}_{architecture.upper()}"


_PLACEHOLDER = BootImage("ami-00000000000000000", USUAL_ROOT_DEVICE)
NOTHING_TO_BOOT = BootImages(dict.fromkeys(ARCHITECTURES, _PLACEHOLDER), "none")


def from_environment(spec: ClusterSpec) -> BootImages:
    """The images that the environment names, or those baked from this program's recipe.

    A `cdktf destroy` on the command line gets placeholders: a cluster must come down even when its
    images are gone.
    """
    named: dict[Architecture, BootImage] = {}
    for architecture in ARCHITECTURES:
        if image_id := os.environ.get(_variable(IMAGE_ID, architecture)):
            device = os.environ.get(_variable(ROOT_DEVICE, architecture)) or USUAL_ROOT_DEVICE
            named[architecture] = BootImage(image_id, device)
    if not named:
        return NOTHING_TO_BOOT if destroys() else look_up(spec)
    return BootImages(named, os.environ.get(RECIPE) or _recipe())


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


def look_up(spec: ClusterSpec) -> BootImages:
    """The images baked from this checkout's recipe, of each architecture that the cluster has.

    Raises:
        MissingPrerequisite: one is missing in this region; the message names `mesaform bake`.
        CloudError: the cloud did not answer.

    """
    from mesaform_images.lookup import find_image

    recipe = _recipe()
    images: dict[Architecture, BootImage] = {}
    for architecture in spec.architectures:
        image = find_image(recipe, spec.region, architecture)
        device = image.get("RootDeviceName") or USUAL_ROOT_DEVICE
        images[architecture] = BootImage(image["ImageId"], device)
    return BootImages(images, recipe)


def look_up_or_placeholder(spec: ClusterSpec) -> BootImages:
    """The images of this checkout's recipe, or placeholders: for runs that boot no machine."""
    try:
        return look_up(spec)
    except MissingPrerequisite:
        return NOTHING_TO_BOOT


def _recipe() -> str:
    from mesaform_images.lookup import recipe_digest

    return recipe_digest()
