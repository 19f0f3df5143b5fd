"""One HTTP exchange: its time limit, its retries, its callers, and how secrets are removed."""
