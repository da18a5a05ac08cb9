"""Labelled images from folders, tables, archives and URLs: a reader for each layout."""
