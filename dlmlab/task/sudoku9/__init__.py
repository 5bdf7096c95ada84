"""Sudoku on 9 × 9 cells: grids and puzzles by propagation (grid.py), the split (content.py), the task (task.py)."""
