"""There and back many times by every mode, with disks that both hosts see, or that go over as well; see two_hosts.py.

The guest is the small one (guest/init), or a Debian with systemd, nginx and Python if $TRAPEZE_DEBIAN names an image that
debian.sh made.
"""
import os

from keys import certificates, make_keys

# How pages go over.
MODES = {
    'pre-copy': ['--precopy'],
    'by default': [],
    'post-copy': ['--postcopy'],
    'hybrid': ['--hybrid', '--bandwidth', '30M'],
    'compressed': ['--compress', 'zstd'],
    'differences': ['--delta', '64M', '--bandwidth', '100M', '--compress', 'none'],
    'connections': ['--connections', '3', '--compress', 'zstd', '--delta', '32M'],
    'throttled': ['--throttle', '80', '--bandwidth', '30M'],
    'stop-and-copy': ['--time-limit', '1', '--on-timeout', 'stop', '--bandwidth', '20M'],
}
# What else the line is: options of both ends.
LINES = {
    'a key': (['--postcopy'], lambda world, host: ['--psk', os.path.join(world.folder, 'psk')]),
    'certificates': (['--connections', '2'], lambda world, host: certificates(world, host.letter)),
}


def copies(world):
    """For each host, the options of a receiver whose disks are its own."""
    options = {}
    for host in (world.a, world.b):
        disks = world.disks
        if host is world.b:
            disks = [path + '-of-b' for path in disks]
            for path, of_a in zip(disks, world.disks):
                with open(path, 'wb') as f:
                    f.truncate(os.path.getsize(of_a))
        options[host] = [word for path in disks for word in ('--disk', path)]
    return options


def rounds(world, apart=False):
    times = int(os.environ.get('TRAPEZE_ROUNDS', '10'))
    only = os.environ.get('TRAPEZE_MODE')
    world.boot(system=os.environ.get('TRAPEZE_DEBIAN'))
    make_keys(world)
    disks = copies(world) if apart else {world.a: [], world.b: []}
    modes = [(name, options, lambda world, host: ['--insecure']) for name, options in MODES.items()]
    modes += [(name, *both) for name, both in LINES.items()]
    for name, options, line in modes:
        if only and name != only:
            continue
        for host in (world.a, world.b):
            host.receive(*line(world, host), *disks[host])
        for _ in range(times):
            for here, there in ((world.a, world.b), (world.b, world.a)):
                world.move(here, there, *line(world, here), *options, *(['--copy-disks'] if apart else []),
                           what=name + (', disks copied' if apart else ''))
