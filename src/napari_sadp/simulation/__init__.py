"""From a crystal and a zone axis to a diffraction pattern."""
