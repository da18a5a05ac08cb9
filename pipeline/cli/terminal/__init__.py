"""What commands show on a terminal, and the signals that end them."""
