"""What can go wrong for a user, each with its exit code and a next step.

A message is one line: what happened, where, and what to do next. Code raises where the fact is known. `cli` catches to
print the line and exit; below it, `read_or_skip` and `image_or_skip` in `images` to skip one image, `engine.batches` to
continue with fewer images at a time, `diagnosis` to make it a finding, and readers of data sets to say where the fault
lies, or to list it and read the rest. A library's own error becomes one of these with `raise ... from` in the module
that is that library's home.
"""


class GroundedSegError(Exception):
    """An expected failure: the message is one line for the user, `exit_code` is the process's."""

    exit_code = 1


class UsageError(GroundedSegError):
    """The request itself makes no sense: an unknown option value, an empty prompt, a used output folder."""

    exit_code = 2


class InputError(GroundedSegError):
    """An input can't be used: no images found, a damaged data set."""

    exit_code = 3


class ImageError(InputError):
    """One image can't be read: not an image, truncated, too large."""


class ImageAccessError(ImageError):
    """The system can't read the file at present: a share is gone, too many files are open. It may be asked again."""


class WeightsError(GroundedSegError):
    """Weights are missing, damaged, of another model, or can't be fetched."""

    exit_code = 4


class DeviceError(GroundedSegError):
    """The device can't run what was asked: no such device, no such dtype on it, out of memory."""

    exit_code = 5


class DeviceMemoryError(DeviceError):
    """The device's memory is full; fewer images at once may fit."""


class WorkerError(DeviceError):
    """Processes that run the models died again and again: killed, or out of memory."""


class OutputError(GroundedSegError):
    """The results can't be written: the disk is full, the folder is forbidden. Not every image is done."""

    exit_code = 1


class UploadError(OutputError):
    """A finished run can't be copied to storage elsewhere; it can be, later."""


class InterruptionError(GroundedSegError):
    """The user, or the system in the user's name, ended the command before it was done."""

    exit_code = 130
