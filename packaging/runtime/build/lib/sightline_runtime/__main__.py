"""``python -m sightline_runtime`` is ``sightline-predict``."""

import sys

from sightline_runtime.predict import main

sys.exit(main())
