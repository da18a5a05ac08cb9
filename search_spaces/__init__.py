"""YAML search spaces that are installed with the package; this folder holds data, no code."""
