"""Small ICC profiles, put together by hand after the standard (ICC.1:2001-04)."""

import struct

ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
"""XYZ of red, green and blue under D50, as Adobe's own profile has them; the gamma is 563 / 256."""
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
_D50 = (0.96420, 1.0, 0.82491)


def rgb_profile(primaries_xyz: tuple[tuple[float, float, float], ...], gamma: float | None) -> bytes:
    """Three primaries and one curve: a gamma, or None for that of sRGB."""
    tags = {name: _xyz(one) for name, one in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries_xyz, strict=True)}
    return _profile(b"RGB ", b"XYZ ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma)))


def grey_profile(gamma: float | None) -> bytes:
    return _profile(b"GRAY", b"XYZ ", {b"kTRC": _curve(gamma)})


def cmyk_profile() -> bytes:
    """Ink K is black; each other one, and several of them, one and the same green (CIE L* 40, a* -30, b* 20)."""
    green, white, black = (round(40 * 2.55), 128 - 30, 128 + 20), (255, 128, 128), (0, 128, 128)
    # K changes fastest.
    corners = bytes(value for inks in range(16) for value in (black if inks % 2 else green if inks else white))
    identity = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * (row == column) for row in range(3) for column in range(3)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + identity * 4 + corners + identity * 3
    return _profile(b"CMYK", b"Lab ", {b"A2B0": table})


def _profile(space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": _description("test"), b"cprt": b"text\0\0\0\0none\0", b"wtpt": _xyz(_D50)} | tags
    directory, data, at = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        directory += name + struct.pack(">II", at + len(data), len(content))
        data += content
    body = struct.pack(">I", len(tags)) + directory + data
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(">I4sI4s4s4s", 128 + len(body), b"lcms", 0x02400000, kind, space, connection)
    head += struct.pack(">6H4s4s", 2026, 1, 1, 0, 0, 0, b"acsp", b"\0" * 4) + b"\0" * 24 + _fixed(*_D50)
    return head.ljust(128, b"\0") + body


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(*values)


def _curve(gamma: float | None) -> bytes:
    if gamma is not None:
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    levels = [at / 1023 for at in range(1024)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in levels]
    return b"curv\0\0\0\0" + struct.pack(">I1024H", 1024, *(round(one * 65535) for one in linear))


def _description(text: str) -> bytes:
    ascii_text = text.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(ascii_text)) + ascii_text + b"\0" * 78
