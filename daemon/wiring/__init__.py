"""Parts of the composition root: where rooms that do not know each other are joined."""
