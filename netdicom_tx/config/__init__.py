"""The configuration file of the node: one model of its tables, read from TOML.

- ``tables.py``: a class for each table, and :class:`Config` with all of them.
- ``kinds.py``: the kinds of values that keys have.
- ``structure.py``: from the values of TOML to the tables.
- ``reading.py``: :func:`read`, with the keys of former versions, the variables and the files of secrets.
- ``lines.py``, ``mistakes.py``: where something stands, and what is wrong with it.
"""

from .lines import lines_of
from .mistakes import EX_CONFIG, ConfigurationError, Mistake
from .reading import Source, read, read_leniently
from .tables import TABLES, Config, Peer, key_of

__all__ = [
    "EX_CONFIG",
    "TABLES",
    "Config",
    "ConfigurationError",
    "Mistake",
    "Peer",
    "Source",
    "key_of",
    "lines_of",
    "read",
    "read_leniently",
]
