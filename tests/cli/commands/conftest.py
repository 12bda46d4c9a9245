"""A hub on this machine, for commands that fetch weights."""

from stand_in_hub import caches as caches
from stand_in_hub import hub as hub
from stand_in_hub import pauses as pauses
