"""``python -m featherweight``."""

from featherweight.cli import main

raise SystemExit(main())
