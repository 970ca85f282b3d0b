"""Readers of what other pipelines write, one format a file. To add one: write a file
that registers the kinds of recording it reads, and import it here."""

from cingulum.io.readers import aslprep, xcpd

__all__ = ["aslprep", "xcpd"]
