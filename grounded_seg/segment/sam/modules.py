"""segment-anything's modules, imported without the rest of its package.

`import segment_anything` also imports its predictor, and with it torchvision, which takes about half a second at each
start; its network needs torch alone. The package is left as it is: where it is imported already, its modules are taken
from there.
"""

import importlib.util
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

_PACKAGE = "segment_anything"
_ALONE = "segment_anything_modeling"
"""Name of the subpackage where it is imported without its package."""


def modeling() -> ModuleType:
    """The subpackage `segment_anything.modeling`; an `ImportError` where segment-anything isn't installed."""
    if _PACKAGE in sys.modules:
        return import_module(f"{_PACKAGE}.modeling")
    if _ALONE in sys.modules:
        return sys.modules[_ALONE]
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise ModuleNotFoundError(f"No module named {_PACKAGE!r}", name=_PACKAGE)
    folder = Path(package.origin).parent / "modeling"
    spec = importlib.util.spec_from_file_location(
        _ALONE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} can't be imported", name=_PACKAGE)
    module = importlib.util.module_from_spec(spec)
    # Its modules import each other relatively, by this name.
    sys.modules[_ALONE] = module
    try:
        spec.loader.exec_module(module)
    except ImportError:
        # Half of it would be found the next time.
        del sys.modules[_ALONE]
        raise
    return module


if TYPE_CHECKING:
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
    from segment_anything.modeling.transformer import Attention
else:
    _modeling = modeling()
    ImageEncoderViT, Sam = _modeling.ImageEncoderViT, _modeling.Sam
    MaskDecoder, PromptEncoder = _modeling.MaskDecoder, _modeling.PromptEncoder
    TwoWayTransformer, Attention = _modeling.TwoWayTransformer, _modeling.transformer.Attention

__all__ = ["Attention", "ImageEncoderViT", "MaskDecoder", "PromptEncoder", "Sam", "TwoWayTransformer"]
