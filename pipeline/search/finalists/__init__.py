"""What follows the trials: the default network, a taught winner, several networks."""
