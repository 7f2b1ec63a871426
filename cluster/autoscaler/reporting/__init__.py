"""Outputs: logs, metrics, the HTTP page on port 9550, the decision log. The only place that renders text."""
