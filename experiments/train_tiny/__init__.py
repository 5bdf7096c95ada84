"""Train the tiny model on exercises that the project generates."""
