"""A hook for whatever wrote its pid into a file: python hook.py INSTANCE PID_FILE STATE_DIR SCHEDULER [LISTEN]"""

import logging
import os
import sys

from quiesce.hookkit import Hook, Process, Scheduler

logging.basicConfig(level=logging.INFO)
instance, pid_file, state_dir, url, *listen = sys.argv[1:]
application = Process(pid_file)
hook = Hook(instance, stop=application.terminate, running=application.running, kill=application.kill, state_dir=state_dir)
scheduler = Scheduler(url, os.environ.get("QUIESCE_CA"), join_token_file=os.environ.get("QUIESCE_JOIN_TOKEN_FILE"))
if listen:
    hook.listen(
        listen[0], scheduler=scheduler, cert=os.environ.get("QUIESCE_HOOK_CERT"), key=os.environ.get("QUIESCE_HOOK_KEY")
    )
else:
    hook.dial_in(scheduler)
