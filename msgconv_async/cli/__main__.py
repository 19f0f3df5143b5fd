"""``python -m msgconv_async.cli``."""

import sys

from msgconv_async.cli import main

sys.exit(main())
