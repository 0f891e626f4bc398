"""Write journals for ever, each in a child to be killed, and print what is on the disk.

`python journal_writer.py` takes a folder from each line of its input, forks, so that a kill hits
the work and not the imports, and prints the id of the child, then what that prints, then `END`.
"""

import os
import sys
from itertools import count

from journalled import BARS, LINE, LOADED, SETTINGS, decided, taken

from hrm_runtime.journal.events import Fed
from hrm_runtime.journal.writer import Journal

END = "end"


def main() -> None:
    """A journal for each line."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            print(os.getpid(), flush=True)
            write(line.removesuffix("\n"))
        os.waitpid(child, 0)
        print(END, flush=True)


def write(folder: str) -> None:
    """Rotate often; print a number when it is new."""
    journal = Journal(folder, file_mb=0.4, files=10_000, most_waiting=500)
    journal.begin(SETTINGS, LOADED)
    journal.record(Fed(1.0, LINE, BARS), BARS)
    told = 0
    print(told, flush=True)
    for sequence in count(1):
        while journal.health().waiting > 400:
            pass
        journal.record(taken(), BARS)
        journal.record(decided(sequence))
        if journal.committed > told:
            told = journal.committed
            print(told, flush=True)


if __name__ == "__main__":
    main()
