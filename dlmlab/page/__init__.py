"""One self-contained HTML page over the runs at or below a folder."""
