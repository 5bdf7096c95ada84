"""Other projects' published code beside ours, in one process; it is named by path, and no part of this project."""
