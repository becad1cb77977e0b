"""One function per command; their arguments are the options of the command line."""

__all__: list[str] = []
