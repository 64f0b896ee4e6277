"""Run two application entities in one process: twistd -n -y node.tac."""

from twisted.application.service import Application

from netdicom_tx import AE, verification_scp

application = Application("dicom")
for title, port in ("FIRST", 11112), ("SECOND", 11113):
    ae = AE(title, called_ae_titles=[title]).add_scp(verification_scp)
    ae.as_service(f"tcp:{port}:interface=127.0.0.1").setServiceParent(application)
