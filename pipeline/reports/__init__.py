"""Pages for people: self-contained HTML files that show what a command found; what was found is decided elsewhere."""
