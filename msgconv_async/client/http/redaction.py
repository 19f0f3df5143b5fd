"""Makes a service's text fit to show: no secret in any spelling, no invisible characters.

A service may repeat the request that it refuses, credentials included, and a proxy in between may
fold, cut or encode that text. So a secret is blanked out in the spellings that services use. Then
the rest is decoded in all usual ways, and compared with the secret once more.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote, quote_plus, unquote, unquote_plus

import msgspec

BLANK = "***"
"""The text that replaces a secret."""

_LENGTH = 200
_SHORT = 4
_SHARED = 8
"""An excerpt and a secret may have fewer than so many characters in a row in common."""
_LAYERS = 4
_MOST_READINGS = 500
_UNDRAWN = frozenset(
    map(
        chr,
        (
            *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810)),
            *(0x2800, 0x3164, *range(0xFE00, 0xFE10), 0xFFA0, *range(0xE0100, 0xE01F0)),
        ),
    )
)
"""Characters that draw nothing, though Unicode has them as marks, letters or symbols (its property
Default_Ignorable_Code_Point, and the blank Braille pattern)."""


def excerpt(body: bytes, secrets: Iterable[str]) -> str:
    """Return the beginning of a body, on one line, for an error's text.

    Args:
        body: What the service sent.
        secrets: The secrets that must not be shown.

    Returns:
        At most 200 characters; `BLANK` alone if a secret would show in them all the same.
    """
    if not body:
        return ""
    text = body.decode(errors="replace")
    known = {secret for secret in secrets if secret}
    spelt = {spelling for secret in known for spelling in spellings(secret)}
    if any(len(spelling) < _SHORT and spelling in text for spelling in spelt):
        return BLANK  # blanking out single letters would show it, and spoil the rest
    for spelling in sorted(spelt, key=len, reverse=True):
        text = text.replace(spelling, BLANK)
    text = visible(text)
    text = text if len(text) <= _LENGTH else f"{text[:_LENGTH]}…"
    return BLANK if _tells(text, known) else text


def visible(text: str) -> str:
    """Return a text on one line, without characters that are unseen or change how others look.

    White space and controls become a space. Characters that format, such as those that change the
    direction of writing, are left out.
    """
    text = re.sub(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)
    text = "".join(character for character in text if is_seen(character))
    return text.strip()


def is_seen(character: str) -> bool:
    """Tell whether a reader sees a character, and it does not change how others look.

    Controls, formats (such as a change of the direction of writing), surrogates and unassigned
    characters are not seen.
    """
    return character.isprintable() and character not in _UNDRAWN


def spellings(secret: str) -> Iterator[str]:
    """Yield a secret as it stands, and as a service may echo it: in a form, JSON or HTML."""
    yield secret
    yield quote(secret, safe="")
    yield quote_plus(secret)
    yield msgspec.json.encode(secret).decode()[1:-1]
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret)[1:-1].replace("/", "\\/")
    yield html.escape(secret)
    yield re.sub("%..", lambda match: match[0].lower(), quote(secret, safe=""))


def _tells(text: str, secrets: Iterable[str]) -> bool:
    """Tell whether a text, decoded in any usual way, has too much in common with a secret."""
    pieces: dict[int, set[str]] = {}
    for form in {form for secret in secrets for form in _forms(secret)}:
        size = min(_SHARED, len(form))
        pieces.setdefault(size, set()).update(
            form[start : start + size] for start in range(len(form) - size + 1)
        )
    pieces.pop(0, None)
    if not pieces:
        return False
    for number, reading in enumerate(_readings(text)):
        if number == _MOST_READINGS:
            return True  # a text made to be decoded without end is not worth showing
        for form in _forms(reading):
            for size, some in pieces.items():
                if any(form[start : start + size] in some for start in range(len(form))):
                    return True
    return False


def _forms(text: str) -> set[str]:
    """Return the forms in which a text is compared, in one case: with and without its spaces."""
    seen = visible(text).casefold()
    return {seen, "".join(seen.split())}


def _readings(text: str) -> Iterator[str]:
    """Yield a text and all that it decodes to, over several layers."""
    seen = {text}
    layer = [text]
    yield text
    for _ in range(_LAYERS):
        found = {
            reading for text in layer for decode in _DECODERS for reading in decode(text)
        } - seen
        yield from found
        seen |= found
        layer = list(found)


def _base64(text: str) -> Iterator[str]:
    for run in re.findall(r"[A-Za-z0-9+/]{6,}", text.translate(_URL_SAFE)):
        for offset in range(4):  # a run may begin in the middle
            cut = run[offset:]
            cut = cut[:-1] if len(cut) % 4 == 1 else cut
            yield base64.b64decode(cut + "=" * (-len(cut) % 4)).decode(errors="replace")


def _hex(text: str) -> Iterator[str]:
    for run in re.findall("[0-9A-Fa-f]{8,}", re.sub(r"0x|\\x|[:,-]", "", text)):
        for offset in range(2):
            cut = run[offset:]
            yield binascii.unhexlify(cut[: len(cut) // 2 * 2]).decode(errors="replace")


def _json(text: str) -> Iterator[str]:
    if "\\" in text:
        yield re.sub(
            r"\\(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|(.))",
            lambda match: (
                _ESCAPES.get(match[3], match[3])
                if match[3]
                else chr(int(match[1] or match[2], 16)).encode(errors="replace").decode()
            ),
            text,
        )


_URL_SAFE = str.maketrans("-_", "+/")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "", "f": ""}
_DECODERS: tuple[Callable[[str], Iterable[str]], ...] = (
    lambda text: ["".join(text.split())],
    lambda text: [re.sub(r"=\s+", "", text)],  # quoted-printable, folded
    lambda text: [re.sub(r"=([0-9A-F]{2})", r"%\1", text)] if "=" in text else [],
    lambda text: [unquote(text), unquote_plus(text)] if "%" in text else [],
    lambda text: [html.unescape(text)] if "&" in text else [],
    lambda text: [re.sub("<[^>]*>", "", text)] if "<" in text else [],
    _json,
    _base64,
    _hex,
)
