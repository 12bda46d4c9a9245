"""The HTTP service: a page to ask on, an interface of its own, and those of label tools."""
