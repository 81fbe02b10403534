"""Makes generated requests meet data that exists, and none of them wait for long."""

import schemathesis

FEEDS = ["tea", "hall"]
USERS = ["bob", "carol"]


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    # A third of the calls go to feeds and people that scripts/schemathesis.sh created; the rest stay as generated.
    if not isinstance(path_parameters, dict):
        return path_parameters
    for name, value in path_parameters.items():
        # To JSON Schema 3.0 is a whole number; in a path it is another text than 3, and refused.
        if isinstance(value, float) and value.is_integer():
            path_parameters[name] = int(value)
    for name, known in (("feed", FEEDS), ("uid", USERS)):
        value = path_parameters.get(name)
        if isinstance(value, str) and value and sum(value.encode("utf-8", "replace")) % 3 == 0:
            path_parameters[name] = known[len(value) % len(known)]
    return path_parameters


@schemathesis.hook
def map_body(context, body):
    # Likewise for the methods that name their feed in the body; a name that is meant to be wrong stays so.
    if isinstance(body, dict):
        value = body.get("feeds")
        if isinstance(value, str) and 0 < len(value) < 60 and value.isprintable() and sum(value.encode("utf-8", "replace")) % 3 == 0:
            body["feeds"] = FEEDS[len(value) % len(FEEDS)]
    return body


@schemathesis.hook
def before_call(context, case, kwargs):
    query = case.query
    if not isinstance(query, dict):
        return
    # Long-polls are valid up to a minute; here a moment must do.
    if str(query.get("wait_ms")).isdigit() and 50 < int(query["wait_ms"]) <= 60000:
        query["wait_ms"] = 50
    # Cursors are opaque and come from an answer; an invented one is refused, as documented.
    if isinstance(query.get("cursor"), str) and len(query["cursor"]) <= 4096:
        del query["cursor"]
