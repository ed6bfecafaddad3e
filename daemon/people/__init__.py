"""People: who may open the admin, and how they prove who they are."""
