"""S3_OBJECTS: what the objects route serves."""

from __future__ import annotations

import pytest

from settings import ServerSettings, Settings, SettingsError

BUCKET = {"S3_IMAGE_BUCKET": "photos"}
ARN = "arn:aws:s3:eu-central-1:123456789012:accesspoint/downloads"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("public/", ("public/",)),
        ("public/a/b/", ("public/a/b/",)),
        ("/", ("/",)),
        (" public/ ", ("public/",)),
        ("Größe 7/", ("Größe 7/",)),
        ("photos=photos/public/", ("photos=photos/public/",)),
        ("docs=other-bucket/", ("docs=other-bucket/",)),
        ("a=photos/x/, b=photos/y/", ("a=photos/x/", "b=photos/y/")),
        ("a=photos/x/,b=photos/x/", ("a=photos/x/", "b=photos/x/")),
        (f"docs={ARN}/", (f"docs={ARN}/",)),
        (f"docs={ARN}/public/", (f"docs={ARN}/public/",)),
        ("k" * 1022 + "/", ("k" * 1022 + "/",)),
    ],
)
def test_valid_s3_objects_are_accepted(text: str, value: tuple[str, ...]) -> None:
    """S3_OBJECTS is one prefix, `/`, or named prefixes in buckets."""
    assert Settings.from_environ({**BUCKET, "S3_OBJECTS": text}).s3_objects == value


@pytest.mark.parametrize("text", ["", "  "])
def test_blank_s3_objects_count_as_unset(text: str) -> None:
    """A blank S3_OBJECTS opens nothing."""
    assert Settings.from_environ({**BUCKET, "S3_OBJECTS": text}).s3_objects == ()


BAD_ENTRIES = {
    "no slash at the end": "public",
    "slash at the beginning": "/public/",
    "two slashes": "//",
    "dots": "../",
    "dots in prefix": "a/../b/",
    "dot in prefix": "./a/",
    "control character": "a\x01b/",
    "not utf-8": "caf\udce9/",
    "prefix of 1025 bytes": "k" * 1024 + "/",
    "name without bucket": "photos=",
    "bucket without name": "=photos/",
    "bucket without slash": "photos=photos",
    "no bucket": "photos=/public/",
    "prefix of root without slash": "photos=photos/public",
    "prefix of root with dots": "photos=photos/../x/",
    "prefix of root with two slashes": "photos=photos//x/",
    "bucket is dots": "photos=../x/",
    "bucket is no bucket": "photos=two words/",
    "name is dots": "..=photos/",
    "name is a dot": ".=photos/",
    "name with blank": "my photos=photos/",
    "name with slash": "a/b=photos/",
    "name not ascii": "größe=photos/",
}


def line_for(text: str) -> str:
    """Return the only line about a wrong S3_OBJECTS."""
    with pytest.raises(SettingsError) as raised:
        ServerSettings.from_environ({**BUCKET, "S3_OBJECTS": text})
    [line] = raised.value.problems
    assert line.startswith("S3_OBJECTS ")
    assert line.endswith("; for example S3_OBJECTS=public/")
    assert line.isprintable()
    return line


@pytest.mark.parametrize("entry", BAD_ENTRIES.values(), ids=BAD_ENTRIES)
def test_bad_entry_of_s3_objects_is_one_line_with_the_entry(entry: str) -> None:
    """The line names the entry, so that it is found among many."""
    assert repr(entry)[1:-1] in line_for(entry)
    good = "docs=other-bucket/"
    line = line_for(f"{good},{entry}")
    assert repr(entry)[1:-1] in line
    assert good not in line


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("public/,private/", "public/"),
        ("public/,public/", "public/"),
        ("/,public/", "/"),
        ("public/,/", "public/"),
        ("public/,docs=other-bucket/", "public/"),
        ("docs=other-bucket/,public/", "public/"),
        ("docs=other-bucket/,/", "/"),
        ("docs=other-bucket/,docs=photos/x/", "docs=photos/x/"),
        ("a=photos/x/,b=photos/y/,a=photos/z/", "a=photos/z/"),
    ],
)
def test_mixed_or_repeated_entries_are_one_line_with_the_entry(text: str, entry: str) -> None:
    """The line names the entry without a name, or the later of two entries with one name."""
    line = line_for(text)
    assert f"has the entry {entry!r}, which must have a NAME= of its own; " in line
    assert line.count("'") == 2  # It names no other entry.


@pytest.mark.parametrize("text", [",", "public/,,docs=b/", ",public/"])
def test_empty_entry_of_s3_objects_is_one_line(text: str) -> None:
    """An empty entry is probably a mistake."""
    assert "S3_OBJECTS" in line_for(text)


@pytest.mark.parametrize("value", ["public/", ["public/"], ("public",), (5,), None, 5])
def test_wrong_s3_objects_in_code_raise(value: object) -> None:
    """A string in code, instead of a tuple, is an error as well."""
    with pytest.raises(SettingsError, match=r"^s3_objects: ") as raised:
        Settings(s3_image_bucket="photos", s3_objects=value)  # type: ignore[arg-type]
    assert len(raised.value.problems) == 1
