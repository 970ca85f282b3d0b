"""Pages: numbers are summarised first, then rendered; neither step knows where they
came from."""

from cingulum.report.page import Picture as Picture
from cingulum.report.page import render as render
