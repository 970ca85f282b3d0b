"""What is on disk: BIDS datasets, their visits and participants, checked files."""
