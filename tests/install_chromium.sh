#!/bin/sh
# The browser of tests/browser.py, where it is missing and apt-get may install it; without it those tests are skipped.
if command -v chromium >/dev/null; then exit 0; fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "no chromium: tests in a browser will be skipped; as root on Debian: make chromium" >&2
    exit 0
fi
apt() {
    DEBIAN_FRONTEND=noninteractive timeout 600 apt-get -qq -y -o Acquire::Retries=1 -o Acquire::http::Timeout=20 "$@"
}
{ apt update && apt install --no-install-recommends chromium; } >/dev/null ||
    echo "apt-get could not install chromium: tests in a browser will be skipped" >&2
