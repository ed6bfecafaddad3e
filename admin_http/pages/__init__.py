"""Pages for people: a file per part, its routes at its end; pages/registry.py lists them, pages/nav.py the menu. docs/pages.md tells how."""
