"""All that reads Florence-2's first implementation (`microsoft/Florence-2-*`), and can be removed whole.

Three modules use it: `model/load.py` (`is_older_config`, `read_older_model`, `add_own_tokens`), `model/adapters.py`
(`is_older_adapter`, `native_adapter`) and `model/save.py` (`write_processor`; its `convert` would go too).
"""
