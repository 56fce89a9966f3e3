"""What an OpenAPI document cannot say about good input, said to schemathesis.

Only the generation of input is narrowed here; no answer is excused. Each narrowed rule has tests of its own.
"""

from datetime import datetime, timedelta, timezone

import schemathesis

# Made by the server and good only for the request that they were made for.
SERVER_MADE = {"continue", "after", "min_resource_version"}


@schemathesis.hook
def before_load_schema(context, raw_schema):
    for path in raw_schema["paths"].values():
        for operation in path.values():
            if isinstance(operation, dict) and "parameters" in operation:
                operation["parameters"] = [
                    parameter for parameter in operation["parameters"] if parameter.get("name") not in SERVER_MADE
                ]
    narrow_times(raw_schema)


def narrow_times(part):
    """A scheduled time must lie in the future (R07), and a document knows no "now"."""
    if isinstance(part, list):
        for item in part:
            narrow_times(item)
    elif isinstance(part, dict):
        for name, value in part.items():
            if name == "scheduled_scale_up" and isinstance(value, dict) and "format" in value:
                soon = datetime.now(timezone.utc) + timedelta(hours=1)
                part[name] = {"type": value.get("type", "string"), "enum": [soon.isoformat()]}
            else:
                narrow_times(value)


@schemathesis.hook
def map_body(context, body):
    """To JSON Schema `1.0` is an integer; R06 wants a literal without a point."""
    if isinstance(body, dict) and isinstance(body.get("replicas"), float) and body["replicas"].is_integer():
        return {**body, "replicas": int(body["replicas"])}
    return body
