"""One request done right, and many accounts at once."""
