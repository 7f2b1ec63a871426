"""Clusters, processes and values that tests and benchmarks share. Not part of a wheel or image."""
