"""What is kept on disk, found again and thrown away: keys, kept results, and the status
of a run."""
