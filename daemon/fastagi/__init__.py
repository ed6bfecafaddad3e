"""The dialplan asks: FastAGI."""
