"""OpenCV, loaded when something is first traced or drawn: the one place that knows that its library may be missing."""

from types import ModuleType

from grounded_seg.errors import DeviceError


def opencv() -> ModuleType:
    """The module `cv2`.

    Raises:
        DeviceError: If it can't be loaded, as its wheel is linked with a library of the system that bare machines lack.
    """
    try:
        import cv2
    except ImportError as error:
        raise DeviceError(
            f"OpenCV can't be loaded ({error}); on Debian: apt-get install libgl1 libglib2.0-0"
        ) from error
    return cv2
