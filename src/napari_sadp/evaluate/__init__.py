"""How good a network and the chain around it are, on structures that it has not seen: measured, and written as a report."""
