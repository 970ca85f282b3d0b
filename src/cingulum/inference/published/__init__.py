"""Published fitting schemes, re-implemented as comparisons."""
