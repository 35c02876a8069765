"""Batches of text and images."""
