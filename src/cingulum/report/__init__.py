"""Pages: results are summarised in sections first, then rendered; neither step knows
where they came from."""
