"""Values and helpers that every package uses. Imports nothing else of the project."""
