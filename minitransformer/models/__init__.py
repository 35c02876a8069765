"""Models, one paper per file."""
