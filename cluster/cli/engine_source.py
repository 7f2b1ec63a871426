"""The engine of a cluster file and the engines of this program's images."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mesaform.cli.context import Context


def require_engine(context: Context) -> None:
    """Check that the images of this program's recipe have the engine of the cluster file.

    A machine without its engine ends with exit code 78, after an image and a whole cluster were
    paid for. Calls no cloud.

    Raises:
        BadInput: `engine: mesos`, and the recipe names no packages of Apache Mesos.

    """
    if context.spec.engine == "embedded":
        return
    from mesaform.config.parser import problem
    from mesaform.doctor.engine import assess
    from mesaform.doctor.finding import Level
    from mesaform_images.bundle import installed_recipe

    finding = assess(context.spec.engine, has_mesos=bool(installed_recipe().engine_packages))
    if finding.level is Level.ERROR:
        raise problem(context.file, ("engine",), finding.detail, finding.remedy)
