"""Names of the atlases that come with the package.

They are apart from `cingulum.signals.atlas`, which loads NumPy: the command line needs
them for its help and its errors, which should come at once.
"""

from __future__ import annotations

ATLASES = ("pain52", "power264", "dosenbach160", "seitzman300")
"""Each has a loader of the same name in `cingulum.signals.atlas`."""
