"""An enterprise's own records: what may be written into them, who does it, and whom a caller's number belongs to."""
