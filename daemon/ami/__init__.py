"""The Asterisk Manager Interface: wire, session, one link per PBX, and the fleet of links."""
