"""Which images are nearly the same, and whether a mirror image is of the same class."""
