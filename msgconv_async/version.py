"""The version, in a module of its own: every request names it."""

__version__ = "0.1.0"
