"""Compiles the pages' templates, those that were not compiled as they are now. Run by `make setup`."""

from admin_http.views import Views

Views().compile()
