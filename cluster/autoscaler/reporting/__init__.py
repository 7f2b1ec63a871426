"""Outputs: logs, metrics, the page on port 9550, the decision log. Only here text is rendered."""
