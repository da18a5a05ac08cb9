"""A click-driven Keras AutoML pipeline for images: search, track and score CNNs."""

__version__ = "0.1.0"
