"""Every setting of a training, how recipes are read, and how they are put together. Nothing here loads torch.

Settings are small frozen dataclasses, a file for each family. The docstring under a field is its help text. A technique
lives in its own block with a ``kind``; an optional block is ``null`` in YAML and ``--block.kind none`` on the command
line, so a knob without effect cannot be written. Values are checked at birth, in the user's spelling; ``Recipe`` checks
what one block asks of another.
"""

# ruff: noqa: F403 - each of these modules lists its names once, in its own __all__

from sightline.config.acgan import *
from sightline.config.augmentation import *
from sightline.config.explaining import *
from sightline.config.finding import *
from sightline.config.finetuning import *
from sightline.config.fitting import *
from sightline.config.generating import *
from sightline.config.generators import *
from sightline.config.heads import *
from sightline.config.networks import *
from sightline.config.optimizers import *
from sightline.config.probing import *
from sightline.config.resolving import named_recipes as named_recipes
from sightline.config.resolving import read_recipe as read_recipe
from sightline.config.resolving import resolve as resolve
from sightline.config.resolving import resolve_any as resolve_any
from sightline.config.resolving import resolve_generator as resolve_generator
from sightline.config.resolving import to_yaml as to_yaml
from sightline.config.resolving import trains_generator as trains_generator
from sightline.config.schedules import *
from sightline.config.serving import *
from sightline.config.settings import *
