"""Is this formula right? Parse it, compare it with a trusted card, prove the answer."""
