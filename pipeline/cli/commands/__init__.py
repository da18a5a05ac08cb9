"""One module a command: it parses, calls a workflow and prints what that found."""
