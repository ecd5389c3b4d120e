"""A hook for whatever wrote its pid into a file: python hook.py INSTANCE PID_FILE STATE_DIR SCHEDULER [LISTEN]"""

import logging
import os
import sys

from quiesce.connection import Files
from quiesce.hookkit import Hook, Process
from quiesce.hookkit.link import Scheduler

logging.basicConfig(level=logging.INFO)
instance, pid_file, state_dir, url, *listen = sys.argv[1:]
application = Process(pid_file)
hook = Hook(instance, stop=application.terminate, running=application.running, kill=application.kill, state_dir=state_dir)
scheduler = Scheduler(url, Files(ca=os.environ.get("QUIESCE_CA")), os.environ.get("QUIESCE_JOIN_TOKEN_FILE"))
if listen:
    hook.listen(listen[0], scheduler=scheduler)
else:
    hook.dial_in(scheduler)
