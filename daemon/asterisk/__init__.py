"""A PBX's own configuration files: read, checked against what vochid needs, and written for an enterprise."""
