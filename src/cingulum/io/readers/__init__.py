"""Readers of what other pipelines write, one format a file. To add one: write a file
that registers the kinds of recording it reads, and import it here."""

from cingulum.io.readers import aslprep, tvb, xcpd

__all__ = ["aslprep", "tvb", "xcpd"]
