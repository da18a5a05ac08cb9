"""Train, validation and test: how images are divided, remembered and written down."""
