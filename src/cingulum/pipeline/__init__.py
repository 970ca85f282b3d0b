"""Studies: a BIDS dataset in; features of every visit, their evaluation and a report
out."""
