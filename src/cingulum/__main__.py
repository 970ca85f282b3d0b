"""`python -m cingulum` is `cingulum`."""

import sys

from cingulum.cli import main

sys.exit(main())
