"""Planted mistakes that change no result, each with the reason."""

EQUIVALENT: dict[str, str] = {}
