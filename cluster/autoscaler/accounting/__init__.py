"""What it cost and who held it: rows for the ledger, and bills from them."""
