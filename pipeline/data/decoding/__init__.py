"""Files to pixels: formats, limits, and the disposable children that decode."""
