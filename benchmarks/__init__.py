"""Benchmarks against the project's own limits. `make bench` runs them all."""
