"""Ends of machines that are announced: what comes, what it means, what is done before."""
