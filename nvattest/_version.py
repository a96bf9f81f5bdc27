"""The version, in a module that costs nothing to import."""

__version__ = "1.1.0"
