"""The type of the JSON documents that the engine's HTTP endpoints and streams send."""

from __future__ import annotations

from typing import TypeAlias

Document: TypeAlias = dict[str, object]
"""A JSON object whose values may be message structs. msgspec encodes it."""
