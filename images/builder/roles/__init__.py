"""Roles: each gives its steps as (name for people, action). An action may run twice and leaves the same."""

from __future__ import annotations

from collections.abc import Callable

Step = tuple[str, Callable[[], None]]
