"""AWS resources that a cluster owns: how each kind is listed and deleted, and in which order."""
