"""Committed measurements and the small tools that keep them honest."""
