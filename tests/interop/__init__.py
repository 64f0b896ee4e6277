"""The library and the node against DCMTK, Orthanc and pynetdicom, over real sockets."""
