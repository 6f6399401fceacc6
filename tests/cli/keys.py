"""Types into a program on a pseudo-terminal: keys.py "TYPED => EXPECTED => TYPED ..." COMMAND..., see terminal.py."""
import os
import pty
import sys

import terminal

pid, fd = pty.fork()
if not pid:
    os.execvp(sys.argv[2], sys.argv[2:])
print(terminal.type_parts(fd, sys.argv[1]).decode(errors='replace'))
