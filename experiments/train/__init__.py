"""Train the small models that ship, on exercises that the project generates."""
