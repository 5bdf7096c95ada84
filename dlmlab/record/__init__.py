"""What a run writes into its folder, written and read in one place."""
