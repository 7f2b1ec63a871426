"""Steps of a bake by module. A step may run twice and leaves the same result."""

from __future__ import annotations

from collections.abc import Callable

Step = tuple[str, Callable[[], None]]
"""A name for people and an action, which raises `host.StepFailed` if it fails."""
