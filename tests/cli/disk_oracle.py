"""What the programs share that compare `trapeze disk` with qemu-img: running both, and trying many images."""
import os
import subprocess
import sys
import tempfile

TRAPEZE = os.path.abspath(sys.argv[1])
KIB, MIB = 1 << 10, 1 << 20


def run(*command, status=0):
    done = subprocess.run(command, capture_output=True, text=True)
    if status is not None and done.returncode != status:
        raise AssertionError(f'{" ".join(command)}: status {done.returncode}, not {status}\n{done.stdout}{done.stderr}')
    return done


def qemu(*args, status=0):
    return run('qemu-img', *args, status=status)


def ours(*args, status=0):
    return run(TRAPEZE, 'disk', *args, status=status)


def shows(image, fmt='qcow2', extra=()):
    qemu('convert', '-f', fmt, '-O', 'raw', *extra, image, 'shows.raw')
    with open('shows.raw', 'rb') as f:
        return f.read()


def try_all(what, cases, one):
    """Calls one(case, number), each in an empty folder of its own, and ends the program: 1 if any of them failed."""
    tried = failed = 0
    for number, case in cases:
        tried += 1
        with tempfile.TemporaryDirectory(prefix='trapeze-disk-') as where:
            os.chdir(where)
            try:
                one(case, number)
            except AssertionError as problem:
                failed += 1
                print(f'{what} {number}: {case}\n  {problem}', flush=True)
            os.chdir('/')
    print(f'{tried} {what}s, {failed} failed')
    sys.exit(failed != 0)
