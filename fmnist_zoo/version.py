"""The package's version, in a module that imports nothing, so that any other may write it into its records."""

__version__ = "1.0.0"
