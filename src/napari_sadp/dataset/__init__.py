"""Training samples made by the simulator."""
