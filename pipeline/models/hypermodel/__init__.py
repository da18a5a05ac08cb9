"""A user's own `kt.HyperModel` or function build(hp): running it, what it must keep to, and its network."""
