"""HyperSpy signals."""
