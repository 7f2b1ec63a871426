"""Fakes behind the product's ports, for tests. Never part of an image."""
