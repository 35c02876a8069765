"""A transformer library on NumPy or CuPy with PyTorch's names."""

from ._version import __version__

__all__ = ["__version__"]
