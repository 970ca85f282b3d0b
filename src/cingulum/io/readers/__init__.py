"""Readers of recordings, one a file. Importing one here registers it."""
