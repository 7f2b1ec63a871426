"""The embedded engine's master."""
