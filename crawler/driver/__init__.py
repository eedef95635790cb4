"""One run, from its roots to its last commit."""
