"""Notices of the cloud about instances, and what follows from them."""
