"""Formats of other label tools: each module writes one."""
