"""The examples on the local cloud: `make examples` raises each, `make test` reads their files."""
