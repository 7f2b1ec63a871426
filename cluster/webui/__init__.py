"""The web pages of the engine master and of services: static files without a build step, and how they are served."""
