"""Send files: python store_pynetdicom.py HOST PORT FILE..."""

import sys

from pydicom.filereader import read_file_meta_info
from pynetdicom import AE

host, port, *paths = sys.argv[1:]
ae = AE()
for path in paths:
    meta = read_file_meta_info(path)
    ae.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
assoc = ae.associate(host, int(port))
if not assoc.is_established:
    sys.exit("no association")
for path in paths:
    try:
        status = assoc.send_c_store(path)
    except (OSError, RuntimeError, ValueError) as error:
        print(path, error)
    else:
        print(path, f"0x{status.Status:04X}" if status else "no answer")
assoc.release()
