"""Prepared: series made ready for the network, and the windows that are cut from them."""

__all__: list[str] = []
