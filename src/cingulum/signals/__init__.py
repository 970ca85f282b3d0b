"""What recordings hold: cleaned BOLD, blood flow, heartbeats and their regions."""
