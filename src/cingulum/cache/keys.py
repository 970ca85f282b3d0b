"""Keys of kept results: the hash of everything that a result depends on."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from cingulum.content import source_digest
from cingulum.versions import package_versions


def key_of(**parts: Any) -> str:
    """SHA-256 of what a result depends on, in JSON's types, and of the software that
    computes it.

    Another version of torch may give another last bit, so results of two versions are
    never mixed. Of this package the source counts: its version stays the same from
    commit to commit.
    """
    software = {**package_versions(), "source": source_digest()}
    # Sorted, because dictionaries keep the order in which they were filled.
    content = json.dumps({"software": software, **parts}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
