"""Runs a script and writes down, in order, what matters to a disk that loses its power: which files
are made and renamed, and what is synced, by whom it runs for that too.

  recorder.py LOG SCRIPT ARGUMENTS…
"""
import os, runpy, sys

log = open(sys.argv[1], "w", buffering=1)
fsync = os.fsync
inside = False


def note(*words):
    global inside
    inside = True
    print(*words, file=log)
    inside = False


def noted_fsync(descriptor):
    note("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
    fsync(descriptor)


def hook(event, arguments):
    if inside:
        return
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        note("write", os.path.realpath(os.fsdecode(arguments[0])))
    elif event == "os.rename":
        note("rename", os.path.abspath(os.fsdecode(arguments[0])))
    elif event == "subprocess.Popen":
        note(*map(os.fsdecode, arguments[1]))


os.fsync = noted_fsync
sys.addaudithook(hook)
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
