"""Recordings: found on the PBX, waited for until they are whole, served by signed links."""
