#!/bin/sh
# SLURM and PostgreSQL of tests/cluster, where they are missing and apt-get may install them; else those are skipped.
if command -v slurmctld >/dev/null && command -v munged >/dev/null && ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
then exit 0; fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "no SLURM or no PostgreSQL: tests on a cluster will be skipped; as root on Debian: make test-cluster" >&2
    exit 0
fi
apt() {
    DEBIAN_FRONTEND=noninteractive timeout 600 apt-get -qq -y -o Acquire::Retries=1 -o Acquire::http::Timeout=20 "$@"
}
{ apt update && apt install --no-install-recommends slurm-wlm munge postgresql; } >/dev/null ||
    echo "apt-get could not install SLURM and PostgreSQL: tests on a cluster will be skipped" >&2
