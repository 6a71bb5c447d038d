"""From classes of single patterns to space groups of the crystal."""
