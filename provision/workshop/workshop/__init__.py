"""What the notebooks of the workshop import: the address of the data, and checks of answers."""

from workshop.checks import NotYet, check, fetch, is_hyrax, own_url, url

__version__ = "1.0.0"
__all__ = ["NotYet", "check", "fetch", "is_hyrax", "own_url", "url"]
