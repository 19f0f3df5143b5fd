"""Many accounts: asked at once, and followed over time."""
