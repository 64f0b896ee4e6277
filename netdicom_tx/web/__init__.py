"""The status page of the node: what it does, what it keeps, and whether it is well (extra ``web``).

:mod:`.server` serves HTTP and guards it. What is served stands in modules that register routes: :mod:`.pages`.
"""
