"""One HTTP exchange: its time, its retries, who shares it, and what of it may be seen."""
