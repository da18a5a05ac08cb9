"""The options that commands share, and how their values are written."""
