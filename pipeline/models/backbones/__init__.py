"""Pretrained networks: those of keras.applications, and presets of keras-hub."""
