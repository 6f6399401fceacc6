"""Certificates and keys for the TLS of two hosts."""
import os
import subprocess


def openssl(folder, *args):
    subprocess.run(['openssl', *args], check=True, capture_output=True, cwd=folder)


def make_certificates(folder, authority, addresses):
    """NAME.pem and NAME.key for each name of addresses, signed by AUTHORITY.pem."""
    new = ['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
    openssl(folder, *new, '-x509', '-days', '2', '-subj', '/CN=' + authority, '-keyout', authority + '.key', '-out',
            authority + '.pem')
    for name, address in addresses.items():
        with open(os.path.join(folder, name + '.ext'), 'w', encoding='ascii') as f:
            f.write(f'subjectAltName=IP:{address}\n')
        openssl(folder, *new, '-subj', '/CN=' + name, '-keyout', name + '.key', '-out', name + '.csr')
        openssl(folder, 'x509', '-req', '-days', '2', '-in', name + '.csr', '-CA', authority + '.pem', '-CAkey',
                authority + '.key', '-CAcreateserial', '-extfile', name + '.ext', '-out', name + '.pem')


def make_keys(world):
    """For TLS: certificates of both hosts, one of another authority, and keys `psk` and `other.psk`."""
    make_certificates(world.folder, 'ca', {host.letter: host.address for host in (world.a, world.b)})
    make_certificates(world.folder, 'foreign', {'stranger': '10.77.0.3'})
    for name in ('psk', 'other.psk'):
        openssl(world.folder, 'rand', '-hex', '-out', name, '32')


def certificates(world, name, authority='ca'):
    path = os.path.join(world.folder, name)
    return ['--cert', path + '.pem', '--key', path + '.key', '--ca', os.path.join(world.folder, authority + '.pem')]
