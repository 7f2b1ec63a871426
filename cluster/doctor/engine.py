"""Whether the images have the engine that the cluster file names."""

from __future__ import annotations

from collections.abc import Iterable

from mesaform.doctor.finding import Finding, error, ok
from mesaform.doctor.subject import Examination

CHECK = "engine"
NO_MESOS = "engine: mesos needs Apache Mesos in the image, and images/recipe.toml names no source"
REMEDY = (
    "set engine: embedded, or name packages, debs or a prefix under [engine] in a file, and its "
    "path in MESAFORM_RECIPE"
)


def look(examination: Examination) -> Iterable[Finding]:
    """Compare the engine of the cluster file with the recipe of the images. No call."""
    yield assess(examination.spec.engine, has_mesos=examination.subject.has_mesos)


def assess(engine: str, *, has_mesos: bool) -> Finding:
    """The finding about an engine. Pure."""
    if engine == "mesos" and not has_mesos:
        return error(CHECK, NO_MESOS, REMEDY)
    return ok(CHECK, engine)
