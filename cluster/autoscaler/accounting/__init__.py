"""Costs: ledger rows of machines and their use, and bills from these rows."""
