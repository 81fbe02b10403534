"""Turns IRC logs into lines for `feedlog import --format jsonl`, with what the logs only imply: who is addressed.

    demo_lines.py LOG... > lines.jsonl     # the first 400 messages of each log

`nick: text` mentions nick when nick spoke in that log before. Prints on standard error the participant who owes the most
answers by then, and one feed of theirs.
"""

import collections
import json
import os
import re
import sys

CHAT = re.compile(r"^\[(\d\d):(\d\d)\] <([^>]+)>(?: (.*))?$")
ADDRESSED = re.compile(r"^([^\s:,]+)[:,]")
MESSAGES_MAX = 400

owed = collections.Counter()
feed_of = {}
for path in sys.argv[1:]:
    name = os.path.basename(path).removesuffix(".raw.txt")
    feed = "demo/" + name
    waiting = collections.defaultdict(list)
    seen, count = set(), 0
    with open(path, encoding="utf-8", newline="\n") as log:
        for number, line in enumerate(log, 1):
            match = CHAT.match(line.rstrip("\n"))
            if not match:
                continue
            nick, text = match[3].strip(), match[4] or ""
            message = {"feed_id": feed, "sender": nick, "payload": text, "client_msg_id": f"{name}:{number}"}
            addressed = ADDRESSED.match(text)
            if addressed and addressed[1] in seen and addressed[1] != nick:
                message["mentions"] = [addressed[1]]
                waiting[addressed[1]].append(number)
            waiting[nick].clear()
            seen.add(nick)
            print(json.dumps(message, ensure_ascii=False))
            count += 1
            if count == MESSAGES_MAX:
                break
    for nick, open_ in waiting.items():
        if len(open_) > owed[nick]:
            owed[nick], feed_of[nick] = len(open_), feed
nick = max(sorted(owed), key=owed.get)
print(nick, feed_of[nick], sep="\t", file=sys.stderr)
