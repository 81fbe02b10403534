"""Compares every feed of a running server with the file it was imported from: each message's sender, text and order.

Reads the sources by itself and shares no code with the importer. FEEDLOG_SERVER and FEEDLOG_TOKEN name the server.

    acceptance_compare.py irc FILE...          # one feed per log
    acceptance_compare.py crosswoz FILE.zip    # one feed per dialogue
    acceptance_compare.py heads                # prints every feed of the caller's list with its head
"""

import concurrent.futures
import json
import os
import re
import sys
import urllib.parse
import urllib.request
import zipfile

SERVER = os.environ["FEEDLOG_SERVER"]
TOKEN = os.environ["FEEDLOG_TOKEN"]
CHAT = re.compile(r"^\[\d\d:\d\d\] <([^>]+)>(?: (.*))?$")


def get(path):
    request = urllib.request.Request(SERVER + path, headers={"Authorization": "Bearer " + TOKEN})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def pull(feed):
    """Every message of a feed, and the places of all entries."""
    quoted, after, messages, places = urllib.parse.quote(feed, safe=""), 0, [], []
    while True:
        page = get(f"/v1/feeds/{quoted}/entries?last_seq_id={after}&limit=1000")
        for entry in page["entries"]:
            places.append(entry["seq_id"])
            if entry["type"] == "message":
                messages.append((entry["sender"], entry["payload"], entry["ordinal"], entry["client_msg_id"]))
        if not page["next"]:
            break
        after = page["next"]["last_seq_id"]
    assert places == list(range(1, page["head_seq_id"] + 1)), f"{feed}: not dense"
    assert [m[2] for m in messages] == list(range(1, len(messages) + 1)), f"{feed}: ordinals"
    return messages


def heads():
    """Every feed in the caller's list with its head."""
    found, cursor = {}, ""
    while True:
        page = get("/v1/feeds?limit=1000" + cursor)
        for feed in page["feeds"]:
            found[feed["feed_id"]] = feed["head_seq_id"]
        if not page["next"]:
            return found
        cursor = "&cursor=" + urllib.parse.quote(str(page["next"]), safe="")


def irc_file(path):
    name = os.path.basename(path)
    lines = open(path, encoding="utf-8", newline="\n").read().split("\n")
    expected = []
    for number, line in enumerate(lines, 1):
        match = CHAT.match(line)
        if match:
            # Names that end in a bracket are padded: `<bob[1] >`.
            expected.append((match[1].strip(), match[2] or "", f"{name}:{number}"))
    return compare("irc/" + name.removesuffix(".raw.txt"), expected)


def dialogue(file, number, messages):
    feed = f"crosswoz/{number}"
    expected = [(f"{feed}/{m['role']}", m["content"], f"{file}:{number}:{i}") for i, m in enumerate(messages, 1)]
    return compare(feed, expected)


def crosswoz(path):
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".json")]
        dialogues = json.loads(archive.read(name))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda item: dialogue(name, item[0], item[1]["messages"]), dialogues.items()))


def compare(feed, expected):
    got = [(sender, payload, id) for sender, payload, _, id in pull(feed)]
    first = next(((a, b) for a, b in zip(expected, got) if a != b), (len(expected), len(got)))
    return feed, len(expected), expected == got, first


def report(results):
    total, bad = 0, 0
    for name, count, same, first in results:
        total += count
        if not same:
            bad += 1
            print(f"{name}: differs, first at {first}")
    print(f"{len(results)} feeds, {total} messages in the sources, {bad} feeds differ")
    return 1 if bad or not results else 0


def main(what, files):
    if what == "irc":
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            return report(list(pool.map(irc_file, files)))
    if what == "crosswoz":
        return report(crosswoz(files[0]))
    if what == "heads":
        for feed, head in sorted(heads().items()):
            print(f"{feed}\t{head}")
        return 0
    raise SystemExit(f"what is {what}?")


sys.exit(main(sys.argv[1], sys.argv[2:]))
