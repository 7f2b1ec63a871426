"""Measurements against the limits that the project set itself. `make bench` runs them all; nothing here is a test."""
