"""Space groups from selected-area electron diffraction patterns."""

__version__ = "0.1.0.dev0"
