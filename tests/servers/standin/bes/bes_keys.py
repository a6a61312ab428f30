"""BES.conf as the stand-in reads it: `KEY=value`, `KEY+=more`, and site.conf last."""

import os
import re


def read_keys(path):
    keys = {}
    for name in (path, os.path.join(os.path.dirname(path), "site.conf")):
        for line in open(name):
            match = re.match(r"([A-Za-z][\w.]*)\s*(\+?)=\s*(.*?)\s*$", line)
            if match:
                added = keys.get(match[1], "") if match[2] else ""
                keys[match[1]] = added + match[3]
    return keys
