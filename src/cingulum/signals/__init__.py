"""What recordings hold: cleaned BOLD, blood flow, heartbeats, and the regions they are
read from."""

from cingulum.signals.bold import Denoising as Denoising
