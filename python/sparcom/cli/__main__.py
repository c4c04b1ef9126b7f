"""`python -m sparcom.cli.main`."""

import sys

from sparcom.cli.main import main

sys.exit(main())
