"""Tables: what comes in as a container becomes numbers with stamps, and goes out as it came."""

__all__: list[str] = []
