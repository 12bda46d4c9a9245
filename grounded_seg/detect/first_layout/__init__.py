"""All that reads Florence-2's first implementation (`microsoft/Florence-2-*`), and can be removed whole.

Used by `model/load.py` (`has_older_layout`, `read_older_model`, `add_own_tokens`), `model/adapters.py` and
`model/lora.py` (`is_older_adapter`, `native_adapter`) and `model/save.py` (`write_processor`; its `convert` would go
too). Without it, `has_older_layout` would still refuse what is no Florence-2.
"""
