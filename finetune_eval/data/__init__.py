"""Rows in: sources, splits that do not leak, and the ledger of what happened to every row."""
