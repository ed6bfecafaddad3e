"""Events to calls. Everything but feed.py and recorder.py is pure."""
