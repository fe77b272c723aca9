"""Other spellings of operations whose meaning is sure."""

from __future__ import annotations

import re

from nas_lightning.cells.operations import operation_names

_WORDS = {
    "null": "none",
    "zero": "none",
    "zeros": "none",
    "zeroize": "none",
    "skip": "skip_connect",
    "skipconnect": "skip_connect",
    "identity": "skip_connect",
    "id": "skip_connect",
    # NNI's first DARTS example has one size of each pooling.
    "maxpool": "max_pool_3x3",
    "avgpool": "avg_pool_3x3",
    # AutoDL's search spaces.
    "duasepc3x3": "sep_conv_3x3",
    "duasepc5x5": "sep_conv_5x5",
    "dilsepc3x3": "dil_conv_3x3",
    "dilsepc5x5": "dil_conv_5x5",
}
_SIZED = re.compile(r"(sep|dil|max|avg|average)(conv|pool|pooling)?(\dx\d)")
_KINDS = {"sep": "conv", "dil": "conv", "max": "pool", "avg": "pool", "average": "pool"}


def usual_operation(name: str) -> str:
    """The name that an operation has here: ``sep 3x3`` is ``sep_conv_3x3``, ``null`` is ``none``.

    Known names, those of the user's own operations among them, stay; so does what is not sure.
    """
    known = operation_names()
    if name in known or len(name) > 40:
        return name
    plain = re.sub(r"[\s_\-.]+", "", name.lower())
    if plain in _WORDS:
        return _WORDS[plain]
    sized = _SIZED.fullmatch(plain)
    if sized is not None:
        kind = _KINDS[sized.group(1)]
        if sized.group(2) is None or sized.group(2).startswith(kind):
            return f"{sized.group(1)[:3]}_{kind}_{sized.group(3)}"
    same = [candidate for candidate in known if re.sub(r"[_]+", "", candidate.lower()) == plain]
    return same[0] if len(same) == 1 else name
