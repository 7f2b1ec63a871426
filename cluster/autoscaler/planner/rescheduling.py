"""Where the tasks of a machine would go if it went: its work as demand, and the room that is left once real demand has its place."""

from __future__ import annotations
