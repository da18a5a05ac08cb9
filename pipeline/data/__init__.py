"""From a path or a name to decoded, split, cached images: sources, the one decoder, splits and the cache."""
