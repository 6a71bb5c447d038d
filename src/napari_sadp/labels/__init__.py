"""The classes of zone-axis patterns, computed from space-group symmetry."""
