"""Write a journal for ever and print what is on the disk: `python journal_writer.py FOLDER`."""

import sys
from itertools import count

from journalled import BARS, LINE, LOADED, SETTINGS, decided, taken

from hrm_runtime.journal.events import Fed
from hrm_runtime.journal.writer import Journal


def main(folder: str) -> None:
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
    main(*sys.argv[1:])
