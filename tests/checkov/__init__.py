"""Checkov on the Terraform JSON of every example, and the list of exceptions with their reasons."""
