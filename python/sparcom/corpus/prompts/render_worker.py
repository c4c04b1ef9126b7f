"""A process that renders chat templates: started by `rendering`, ended by the end of its input.

A chat template is a program that comes with a model. Here it runs within bounds: the operating
system ends this process if a request takes too much processor time, and refuses it memory. The
template is rendered by transformers' own function, in its sandbox.

Reads one JSON object a line: {"template", "variables", "date", "chats"}. Writes one JSON list a
line: for each chat [text, null] or [null, reason]. The first line that it writes is "ready".
"""

import json
import resource
import signal
import sys
from collections.abc import Callable
from datetime import datetime

SECONDS = 1.0  # of the processor, for one request
MEMORY = 1 << 30  # bytes, beyond what the process holds when it is ready
LONGEST = 1 << 24  # characters by which a template may lengthen a text


def main() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template as render

    _bound_memory()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # SIGPROF ends the process
        answer = [_rendered(render, request, chat) for chat in request["chats"]]
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(answer), flush=True)


def _bound_memory() -> None:
    """Refuse this process more than `MEMORY` from now on; only Linux enforces such a limit."""
    if sys.platform != "linux":
        return
    with open("/proc/self/statm") as pages:
        held = int(pages.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))


def _rendered(
    render: Callable, request: dict, chat: list[dict[str, str]]
) -> tuple[str | None, str | None]:
    variables = dict(request["variables"])
    if request["date"] is not None:
        # A variable of the template hides the function of that name that transformers provides.
        variables["strftime_now"] = datetime.fromisoformat(request["date"]).strftime
    try:
        (text,), _ = render(
            conversations=[chat],
            chat_template=request["template"],
            add_generation_prompt=True,
            **variables,
        )
    except Exception as error:  # a template is a program of its own, and may raise anything
        return None, f"{type(error).__name__}: {error}"[:500]
    longer = len(text) - sum(len(message["content"]) for message in chat)
    if longer > LONGEST:
        return None, f"it writes {longer} characters of its own"
    return text, None


if __name__ == "__main__":
    main()
