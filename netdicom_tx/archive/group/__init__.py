"""Groups of nodes: which database and store belong together, which nodes are alive, and which node has which duty."""
