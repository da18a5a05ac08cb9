"""The study on disk: its SQLite file, which studies there are, and how often test images were opened."""
