"""Pretraining: a small TSM2 that has learned from generated series alone."""

from tsm2.pretraining.generator import GeneratedWindows, generate

__all__ = ["GeneratedWindows", "generate"]
