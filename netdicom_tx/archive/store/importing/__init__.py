"""Take files of this machine into an archive without the network; a node may be running on it.

Processes look at the files, a part of them each, because Python uses one core of each process. For a part, a process
reads and checks every file as a C-STORE is checked, and writes it under a temporary name. It then syncs all of them at
once, and gives them their names in the archive. So nothing under ``instances/`` is ever incomplete. The names are
synced together with the octets of the next part.
The process that imports adds the rows of a part in one transaction. A file counts as imported after that. What a kill
leaves behind are files that the next import finds to be there already; it adds the rows that are missing.

An instance whose SOP Instance UID is known already, with other octets, is decided by
:meth:`FileStore.keep <netdicom_tx.archive.store.filestore.FileStore.keep>`, as when it is sent.

No name is taken from a file that has it: a running node may store the same instance at the same time. After the
commit, each file is looked at once more, and its row is made again when the node has put its own file in its place.

:func:`put_files` does the same for a store that nodes share, in a simpler way.

Temporary names are under ``importing/``, which also has the lock that one import at a time holds.
"""

from .committing import import_files
from .found import Source, Taken, What
from .opening import opened_for_import
from .processes import Reader, ReaderError, readers
from .putting import put_files

__all__ = [
    "Reader",
    "ReaderError",
    "Source",
    "Taken",
    "What",
    "import_files",
    "opened_for_import",
    "put_files",
    "readers",
]
