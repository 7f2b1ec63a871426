"""What is told: log lines, metrics, the page on 9550, stories for people."""
