"""Darkroom: asynchronous vision inference."""
