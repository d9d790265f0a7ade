"""`python -m raystream.cli`, for an installation whose scripts are not on the path."""

import sys

from raystream.cli.main import main

sys.exit(main())
