"""Widgets of the napari plugin."""
