"""Writes unicode_categories.inc: the general category of every code point, as runs of equal ones.

Needs a Python whose Unicode is that of the libraries we agree with, 16.0: Python 3.14, or any with the
package unicodedata2 16.0.0.

    python csrc/tokens/make_unicode_categories.py > csrc/tokens/unicode_categories.inc
"""

import unicodedata
from itertools import groupby
from textwrap import fill

VERSION = "16.0.0"
# Their places are the numbers that unicode.h and unicode.cpp know them by.
CATEGORIES = [
    "Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps",
    "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Cs",
]  # fmt: skip
LONGEST = 2047  # a run is one 16-bit number: its length times 32, plus the category


def main() -> None:
    """Print the file."""
    library = unicodedata
    if library.unidata_version != VERSION:
        import unicodedata2 as library
    if library.unidata_version != VERSION:
        raise SystemExit(f"needs Unicode {VERSION}, got {library.unidata_version}")
    runs = []
    for category, codes in groupby(map(library.category, map(chr, range(0x110000)))):
        length = len(list(codes))
        while length:
            runs.append(min(length, LONGEST) * 32 + CATEGORIES.index(category))
            length -= min(length, LONGEST)
    print(f"// Unicode {VERSION}, written by make_unicode_categories.py.")
    print(fill(", ".join(map(str, runs)), 110))


if __name__ == "__main__":
    main()
