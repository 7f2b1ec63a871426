"""Prices of instances: price list, spot quotes, offline price book."""
