"""What recordings hold: cleaned BOLD, blood flow, heartbeats, and the regions they are
read from."""
