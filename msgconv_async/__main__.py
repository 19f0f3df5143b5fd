"""``python -m msgconv_async`` runs ``msgconv``, even if another program has that name."""

import sys

from msgconv_async.cli import main

sys.exit(main())
