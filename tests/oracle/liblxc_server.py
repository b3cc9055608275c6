"""Serves python3-lxc's config calls to the oracle tests: JSON lines in, JSON lines out.

Runs under the system's interpreter, as an ordinary user with a home of its own, so that liblxc leaves nothing in /run.
A request is a list of operations; each answer is ["ok", VALUE] or ["error"].
"""

import json
import os
import sys


def become_nobody(home):
    os.environ.update(HOME=home, XDG_RUNTIME_DIR=home, XDG_CACHE_HOME=home, LANG="C.UTF-8")
    if os.geteuid() == 0:
        os.chown(home, 65534, 65534)
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def main():
    home = sys.argv[1]
    become_nobody(home)
    import _lxc

    container = None
    for line in sys.stdin:
        answers = []
        for operation, *arguments in json.loads(line):
            try:
                if operation == "new":
                    container = _lxc.Container("oracle", home)
                    empty = os.path.join(home, "empty")
                    open(empty, "w").close()
                    value = container.load_config(empty)
                elif operation == "load":
                    container = _lxc.Container("oracle", home)
                    value = container.load_config(*arguments)
                else:
                    name = {"set": "set_config_item", "get": "get_config_item", "clear": "clear_config_item",
                            "keys": "get_keys", "save": "save_config"}[operation]
                    value = getattr(container, name)(*arguments)
            except Exception:
                answers.append(["error"])
            else:
                answers.append(["error"] if value is False else ["ok", value])
        print(json.dumps(answers), flush=True)


main()
