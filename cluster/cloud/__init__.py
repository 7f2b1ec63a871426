"""The cloud: ports, the AWS adapters behind them, and the fakes beside them."""
