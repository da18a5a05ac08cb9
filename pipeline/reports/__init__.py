"""What was found, for people: pages of HTML that stand alone, and lines of text; what it is is decided elsewhere."""
