"""Web pages of engine, services and autoscaler: static files without a build step."""
