"""Keyed and operator state, and how it is encoded."""
