"""``python -m msgconv_async``: the command ``msgconv``, whatever else may have that name."""

import sys

from msgconv_async.cli import main

sys.exit(main())
