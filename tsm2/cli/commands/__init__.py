"""One function per command; their arguments are the options of the command line."""
