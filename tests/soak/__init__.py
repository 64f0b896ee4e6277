"""A soak of the node: peers that store, find and retrieve for minutes or hours; see ``__main__``."""
