"""Ports to AWS and the boto3 adapters behind them."""
