#!/usr/bin/env python3
"""Writes fuzz/seeds/chunk: one small chunk for each form of event that Fluent Bit's releases and peers hand over."""

import pathlib
import struct

TIME = b"\xd7\x00" + struct.pack(">II", 1_700_000_000, 123_456_789)
HEAD = b"\x92\x92" + TIME + b"\x80"


class Pairs(list):
    """A map whose keys may repeat, or be no dictionary's."""


def pack(value):
    """msgpack in its shortest form, as Fluent Bit writes it; bytes that are given as a bytearray stand as they are."""
    if isinstance(value, bytearray):
        return bytes(value)
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        if -32 <= value < 128:
            return struct.pack("b", value)
        return b"\xcf" + struct.pack(">Q", value) if value >= 0 else b"\xd3" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, bytes):
        return b"\xc4" + bytes([len(value)]) + value
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogateescape")
        if len(text) < 32:
            return bytes([0xA0 | len(text)]) + text
        return b"\xda" + struct.pack(">H", len(text)) + text
    if isinstance(value, Pairs):
        head = bytes([0x80 | len(value)]) if len(value) < 16 else b"\xde" + struct.pack(">H", len(value))
        return head + b"".join(pack(key) + pack(item) for key, item in value)
    if isinstance(value, list):
        head = bytes([0x90 | len(value)]) if len(value) < 16 else b"\xdc" + struct.pack(">H", len(value))
        return head + b"".join(map(pack, value))
    return pack(Pairs(value.items()))


KUBERNETES = {
    "pod_name": "web-6c8b449b8f-x2x7q",
    "namespace_name": "shop",
    "labels": {"app": "nginx"},
    "container_name": "nginx",
    "docker_id": "0123456789abcdef",
}
LINE = {"log": 'GET /caf\u00e9 "200"\t\x1b[0m', "stream": "stdout", "kubernetes": KUBERNETES}
GROUP = {"resource": {"attributes": {"service.name": "shop"}}, "scope": {"name": "otel"}}


def group(seconds, metadata, body):
    return b"\x92\x92\xd7\x00" + struct.pack(">II", seconds, 0) + pack(metadata) + pack(body)


def nested(depth, opening):
    return bytearray(opening * depth + b"\x01")


SEEDS = {
    "today": HEAD + pack(LINE) + HEAD + pack({"log": "second"}),
    "until-2.0": b"\x92" + TIME + pack(LINE),
    "array16": b"\xdc\x00\x02\xdd\x00\x00\x00\x02" + TIME + b"\xde\x00\x00" + pack({"log": "x"}),
    "ext8-time": b"\x92\x92\xc7\x08\x00" + TIME[2:] + b"\x80" + pack({"log": "x"}),
    "integer-time": b"\x92\xce\x65\x53\xf1\x00" + pack({"log": "x"}),
    "float-time": b"\x92" + pack(1_700_000_000.5) + pack({"log": "x"}),
    "metadata": b"\x92\x92" + TIME + pack({"otlp": {"severity_number": 9}}) + pack({"log": "x"}),
    "group": group(0xFFFFFFFF, {"schema": "otlp", "resource_id": 0, "scope_id": 0}, GROUP)
    + HEAD
    + pack({"log": "in", "scope": 1})
    + group(0xFFFFFFFE, {}, {})
    + HEAD
    + pack({"log": "out"}),
    "no-utf8": HEAD + pack({"log": "a\udcffb\udcf0", "k\udcff": "\udcc3"}),
    "keys": HEAD
    + pack(Pairs([(1, "one"), (b"bin", b"\xff\xfe"), (b"text", b"text"), (None, 1), (True, 2), (-1.5, 3), ([5], 4), ("1", 5)])),
    "maps-as-keys": HEAD + pack(Pairs([(Pairs([(Pairs([(1, [2])]), 3)]), "four")])),
    "numbers": HEAD + pack({"n": [float("nan"), float("inf"), 2**64 - 1, -(2**63), 0.1, 1e300, -1, bytearray(b"\xca\x3d\xcc\xcc\xcd")]}),
    "ext": HEAD + pack({"e": bytearray(b"\xd4\x05\x01"), "f": bytearray(b"\xc7\x03\x07abc")}),
    "repeated": HEAD + pack(Pairs([("a", 1), ("b", 2), ("a", {"c": 3}), ("pod_name", "mine"), ("kubernetes", KUBERNETES), ("pod_name", "mine too")])),
    "many-keys": HEAD + pack(Pairs([(f"k{n % 20}", n) for n in range(40)])),
    "deep-arrays": HEAD + pack({"d": nested(120, b"\x91")}),
    "deep-maps": HEAD + pack({"d": nested(98, b"\x81\xa1k")}),
    "no-map": HEAD + pack("text") + HEAD + pack([1, 2]) + HEAD + pack(None),
    "cut-short": HEAD + pack(LINE)[:-9] + HEAD + pack({"log": "after"}),
    "lying-length": HEAD + b"\x81\xa3log\xdb\x7f\xff\xff\xffx" + HEAD + b"\xdf\x00\x00\x00\x09\xa1a\x01",
    "reserved": HEAD + b"\x81\xa1a\xc1" + HEAD + pack({"log": "after"}),
    "no-event": b"\x01\x93\x01\x02\x03" + HEAD + pack({"log": "after"}),
    "escapes": HEAD + pack({'"\\\n\u2028': "".join(map(chr, range(33))) + "\U0001f600" * 9}),
    "paths": HEAD + pack({"a": {"b": {"c": 1}}, "b": 2, "c": 3, "message": "m", "log": None}),
    "empty": HEAD + b"\x80",
}

folder = pathlib.Path(__file__).parent / "seeds" / "chunk"
folder.mkdir(parents=True, exist_ok=True)
for name, chunk in SEEDS.items():
    (folder / name).write_bytes(chunk)
