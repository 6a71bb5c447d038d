"""Files in: microscope formats through RosettaSciIO, CIF through diffpy.structure."""
