"""``python -m napari_sadp.cli``."""

import sys

from napari_sadp.cli import main

sys.exit(main())
