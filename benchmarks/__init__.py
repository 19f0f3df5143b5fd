"""What this library promises in figures, measured: `python -m benchmarks <name>`."""
