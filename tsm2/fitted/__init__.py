"""Fitted: what a fit leaves behind, and all that is asked of it."""

__all__: list[str] = []
