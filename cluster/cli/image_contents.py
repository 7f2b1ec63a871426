"""What a cluster file needs of images, and what this program's recipe installs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mesaform.cli.context import Context


def require_contents(context: Context) -> None:
    """Check that the images of this program's recipe have what the cluster file needs of them.

    A machine without its engine ends with exit code 78, after an image and a whole cluster were
    paid for. Calls no cloud.

    Raises:
        BadInput: `engine: mesos` or `debug: ssm`, and the recipe does not install it.

    """
    spec = context.spec
    if spec.engine == "embedded" and spec.debug is None:
        return
    from mesaform.config.parser import problem
    from mesaform.doctor.engine import assess
    from mesaform.doctor.finding import Level
    from mesaform_images.bundle import installed_recipe

    recipe = installed_recipe()
    finding = assess(spec.engine, has_mesos=recipe.engine_source is not None)
    if finding.level is Level.ERROR:
        raise problem(context.file, ("engine",), finding.detail, finding.remedy)
    if spec.debug == "ssm" and not recipe.has_session_manager:
        what = "ssm needs Session Manager's agent in the image, and images/recipe.toml names no url"
        raise problem(context.file, ("debug",), what, "leave debug out, or name the url")
