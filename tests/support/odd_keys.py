"""Keys that S3 allows and that a careless encoder, decoder or router changes."""

from urllib.parse import quote

MAX_KEY_BYTES = 1024

# The names are the test ids.
ODD_KEYS = {
    "space": "a b.txt",
    "spaces at both ends": " a ",
    "umlauts": "Rechnungen/Größe.pdf",
    "emoji": "😀/🎉.txt",
    "plus": "a+b.txt",
    "percent": "100%",
    "percent and no hex digits": "a%zz",
    "encoded slash as text": "a%2Fb",
    "encoded dots as text": "%2e%2e/%2E.txt",
    "double encoded slash as text": "a%252Fb",
    "question mark": "what?.txt",
    "question mark alone": "?",
    "query": "a?download=x&prefix=y",
    "hash": "a#b.txt",
    "hash alone": "#",
    "ampersand": "a&b",
    "equals": "a=b",
    "semicolon": "a;b=c",
    "asterisk": "a/*",
    "tilde": "~a/b~",
    "quotes": "a\"b'c`d",
    "backslash": "a\\b",
    "backslash and dots": "a\\..\\b",
    "brackets": "a[1]{2}<3>(4).txt",
    "punctuation": "$a@b!c,d:e|f^g",
    "url": "https://files.example/a",
    "leading slash": "/a.txt",
    "leading double slash": "//b.txt",
    "double slash": "a//b.txt",
    "trailing slash": "folder/",
    "trailing double slash": "folder//",
    "three dots": ".../a/....",
    "dots in names": "a/..b/c../.d/e.",
    "replacement character": "\ufffd.txt",
    "nfc": "caf\u00e9.txt",
    "nfd": "cafe\u0301.txt",
    "right to left override": "\u202etxt.exe",
    "line separator": "a\u2028b",
    "byte order mark": "\ufeffa",
    "private use": "\ue000",
    "noncharacter": "\uffff",
    "route": "tasks/1/image",
    "format field": "{key}{0}%s",
}

# A file system takes 255 bytes for a name, so that nginx can serve this key as well.
LONGEST_SEGMENTS = "é" * 120 + "/"


def longest_key(prefix: str) -> str:
    """Return a key that has 1,024 bytes of UTF-8 together with `prefix`."""
    room = MAX_KEY_BYTES - len(prefix.encode())
    count, rest = divmod(room, len(LONGEST_SEGMENTS.encode()))
    return LONGEST_SEGMENTS * count + "k" * rest


def encode(key: str) -> str:
    """Percent-encode a key as most clients do: every character that could mean something."""
    return quote(key, safe="/")


def encode_little(key: str) -> str:
    """Percent-encode only the characters with which a path ends, or that no path may have."""
    return quote(key, safe="/!\"$&'()*+,:;<=>@[\\]^`{|}~")


def encode_all(key: str) -> str:
    """Percent-encode every byte, slashes as well."""
    return "".join(f"%{byte:02x}" for byte in key.encode())


ENCODERS = [encode, encode_little, encode_all]
