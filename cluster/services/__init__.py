"""The Marathon-compatible framework: long-running services on 8080."""
