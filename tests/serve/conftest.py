"""Fixtures of the tests of `serve`."""

from elsewhere import elsewhere as elsewhere
from serve_cases import as_base64 as as_base64
from serve_cases import demo as demo
from serve_cases import demo_settings as demo_settings
from serve_cases import png as png
from serve_cases import served as served
from serve_cases import start as start
