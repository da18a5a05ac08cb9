"""Where the space of a search comes from: a file, or the code of a user."""
