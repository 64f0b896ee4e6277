"""Tells ``twistd`` and ``twist`` of the subcommand ``dicom``.

Every ``twistd --help`` imports this file, so it imports nothing of ours: it names the node, and
only running the subcommand loads it.
"""

from twisted.application.service import ServiceMaker

dicom = ServiceMaker("netdicom_tx", "netdicom_tx.tap", "A DICOM archive node", "dicom")
