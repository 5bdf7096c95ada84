"""Speed, ceilings and statistics."""
