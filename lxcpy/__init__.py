"""lxcpy: system containers in Python, compatible with LXC."""

__version__ = "0.1.0"
