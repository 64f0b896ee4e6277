"""Several nodes that share PostgreSQL, an object store and HAProxy, all as processes on this machine."""
