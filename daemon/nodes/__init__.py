"""Several daemons on one database: what they tell and ask each other, and who reads which PBX."""
