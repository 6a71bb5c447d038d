"""Central beam, spots, lattice and the image convention: numpy and scikit-image only."""
