"""The JSON API. Every module lists its routes; app.py puts them together, openapi.py describes them."""
