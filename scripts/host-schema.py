#!/usr/bin/env python3
"""Writes cli/src/lint/host.txt, the table of Fluent Bit's plugins and options that lint judges by.

    scripts/host-schema.py FLUENT_BIT SOURCE > cli/src/lint/host.txt

FLUENT_BIT is the program, whose `-J` prints its schema; SOURCE is the source tree of the same release, for what the schema
leaves out: which options may repeat, the plugins that this build of the program was made without, and the options that the
core keeps for many plugins (`shared`).
"""
import glob
import json
import re
import subprocess
import sys

program, source = sys.argv[1:]
schema = json.loads(subprocess.run([program, "-J"], check=True, capture_output=True).stdout)

TYPES = {
    "string": "string", "boolean": "bool", "integer": "int", "double": "double", "size": "size", "time": "time",
    "multiple comma delimited strings": "commas", "variant": "variant", "prefixed string": "prefix",
    "deprecated": "deprecated",
}
C_TYPES = {
    "STR": "string", "BOOL": "bool", "INT": "int", "DOUBLE": "double", "SIZE": "size", "TIME": "time",
    "CLIST": "commas", "VARIANT": "variant", "STR_PREFIX": "prefix", "DEPRECATED": "deprecated", "SLIST": "words1",
}


def type_of(text):
    words = re.match(r"(space|comma) delimited strings \(minimum (\d)\)", text)
    return f"{'words' if words[1] == 'space' else 'commas'}{words[2]}" if words else TYPES[text]


def c_type_of(text):
    words = re.match(r"([SC])LIST_(\d)$", text)
    return f"{'words' if words[1] == 'S' else 'commas'}{words[2]}" if words else C_TYPES[text]


OPTION = re.compile(
    r'FLB_CONFIG_MAP_([A-Z_0-9]+)\s*,\s*"([^"]+)"\s*,\s*(?:"(?:[^"\\]|\\.)*"|[^,"{}])*?,\s*([A-Z_0-9| ]+?)\s*,')
PLUGIN = re.compile(r"struct flb_(input|filter|output|custom|processor)_plugin \w+\s*=\s*\{(.*?)\n?[^\n]*\};", re.S)

plugins, repeatable = {}, {}
for folder in sorted(glob.glob(f"{source}/plugins/*_*")):
    text = "".join(open(path, errors="replace").read() for path in sorted(glob.glob(f"{folder}/*.c")))
    options = {}
    for kind, name, flags in OPTION.findall(text):
        options[name.lower()] = (c_type_of(kind), "MULT" in flags or flags.strip() == "FLB_TRUE")
    for kind, body in PLUGIN.findall(text):
        name = re.search(r'\.name\s*=\s*"([^"]+)"', body)
        if not name:
            continue
        flags = re.search(r"\.flags\s*=\s*([^,\n]*)", body)
        flags = flags[1] if flags else ""
        marks = [word for word, flag in (("tls", "_TLS"), ("http-server", "HTTP_SERVER")) if flag in flags]
        if kind == "input" and "INPUT_NET" in flags:
            marks.append("server" if "INPUT_NET_SERVER" in flags else "client")
        plugins[kind, name[1].lower()] = (marks, options)

# What the core reads for an input that serves or asks, for an output, and for a server of HTTP.
SHARED = {
    "client": ["flb_upstream.c"], "server": ["flb_downstream.c"], "http-server": ["http_server/flb_http_server_config_map.c"],
    "oauth2-input": ["flb_oauth2_jwt.c"], "oauth2-output": ["flb_oauth2.c"],
}
for name, files in SHARED.items():
    text = "".join(open(f"{source}/src/{file}", errors="replace").read() for file in files)
    options = {option.lower(): (c_type_of(kind), True) for kind, option in
               re.findall(r'FLB_CONFIG_MAP_([A-Z_0-9]+)\s*,\s*"([^"]+)"', text)}
    plugins["shared", name] = ([], options)
for kind in ("input", "output"):
    # These are compared one by one, without a table.
    text = open(f"{source}/src/flb_{kind}.c", errors="replace").read()
    keys = set(re.findall(r'prop_key_check\("(tls\.[^"]+)"', text))
    plugins["shared", f"tls-{kind}"] = ([], {key: ("string", True) for key in keys})

for group in ("customs", "inputs", "filters", "outputs", "processors"):
    for plugin in schema[group]:
        key = (plugin["type"], plugin["name"].lower())
        marks, from_source = plugins.get(key, ([], {}))
        options = {}
        for option in plugin["properties"].get("options") or []:
            name = option["name"].lower()
            many = from_source.get(name, ("", False))[1]
            options[name] = (type_of(option["type"]), many)
        # One with a table in which nothing stands; without a table the host checks nothing.
        if plugin["properties"].get("options") == []:
            marks = [*marks, "bare"]
        plugins[key] = (marks, options or from_source)

print(f"# Plugins and options of Fluent Bit {schema['fluent-bit']['version']}, written by scripts/host-schema.py.")
print("# `kind name marks`, then ` option type`; + after the type: the option may repeat.")
for (kind, name), (marks, options) in sorted(plugins.items()):
    print(" ".join([kind, name, *marks]))
    for option, (type_name, many) in sorted(options.items()):
        print(f" {option} {type_name}{'+' if many else ''}")
