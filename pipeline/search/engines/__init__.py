"""Who trains: the protocol, and child processes on this machine."""
